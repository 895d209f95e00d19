/**
 * What is taken of prom-client, each from its own file: its index loads `cluster`, OpenTelemetry and a client of HTTP as
 * well, 50 ms that every start would pay.
 */
import { createRequire } from 'node:module';
import type * as client from 'prom-client';

type Client = typeof client;
const require = createRequire(import.meta.url);

export const Counter: Client['Counter'] = require('prom-client/lib/counter.js');
export const Gauge: Client['Gauge'] = require('prom-client/lib/gauge.js');
export type Gauge<Labels extends string = string> = client.Gauge<Labels>;
export const Histogram: Client['Histogram'] = require('prom-client/lib/histogram.js');
export const Registry: Client['Registry'] = require('prom-client/lib/registry.js');
