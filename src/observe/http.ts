/**
 * The daemon's HTTP side: `/healthz` (the process lives), `/readyz` (every sync streams), `/status` (JSON),
 * `/metrics` (Prometheus). Read-only.
 */
import { timingSafeEqual } from 'node:crypto';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { IbexError, isKind } from '../core/errors.ts';
import type { Logger } from './log.ts';
import type { Metrics } from './metrics.ts';
import type { SyncStatus, UnknownStatus } from './status.ts';

export interface HttpOptions {
  readonly host: string;
  readonly port: number;
  /** Asked for as `Authorization: Bearer TOKEN` by every path but /healthz; undefined: nothing is asked. */
  readonly token: string | undefined;
  readonly metrics: Metrics;
  readonly log: Logger;
  readonly streaming: () => boolean;
  readonly status: () => Promise<readonly (SyncStatus | UnknownStatus)[]>;
  /** Brings metrics up to date that are read when asked for. */
  readonly refresh: () => Promise<void>;
}

const INDEX = 'ibex: /healthz /readyz /status /metrics\n';

/** Starts listening. Errors: `config` when the address cannot be had. */
export async function serve(options: HttpOptions): Promise<Server> {
  const server = createServer((request, response) => {
    answer(options, request, response).catch((error) => {
      const notYet = isKind(error, 'not_set_up');
      if (!notYet) options.log.warn({ err: error }, 'an HTTP request failed');
      const message = error instanceof IbexError ? error.message : 'internal error';
      send(response, notYet ? 503 : 500, 'text/plain', `${message}\n`);
    });
  });
  await new Promise<void>((resolve, reject) => {
    server.once('error', (error) => {
      reject(
        new IbexError('config', `cannot listen on ${options.host}:${options.port}: ${error.message}`, {
          hint: 'Give another address with --listen.',
          cause: error,
        }),
      );
    });
    server.listen(options.port, options.host, resolve);
  });
  return server;
}

async function answer(
  options: HttpOptions,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const [path] = (request.url ?? '/').split('?');
  if (request.method !== 'GET' && request.method !== 'HEAD')
    return send(response, 405, 'text/plain', 'only GET\n');
  if (path === '/healthz') return send(response, 200, 'text/plain', 'alive\n');
  if (!authorised(options.token, request)) return send(response, 401, 'text/plain', 'a token is needed\n');
  if (path === '/readyz') {
    const streaming = options.streaming();
    return send(
      response,
      streaming ? 200 : 503,
      'text/plain',
      streaming ? 'streaming\n' : 'not streaming yet\n',
    );
  }
  if (path === '/status') {
    return send(response, 200, 'application/json', `${JSON.stringify(await options.status(), null, 2)}\n`);
  }
  if (path === '/metrics') {
    await options.refresh();
    return send(
      response,
      200,
      options.metrics.registry.contentType,
      await options.metrics.registry.metrics(),
    );
  }
  return send(response, path === '/' ? 200 : 404, 'text/plain', INDEX);
}

function authorised(token: string | undefined, request: IncomingMessage): boolean {
  if (token === undefined) return true;
  const given = Buffer.from(request.headers.authorization ?? '');
  const wanted = Buffer.from(`Bearer ${token}`);
  return given.length === wanted.length && timingSafeEqual(given, wanted);
}

function send(response: ServerResponse, code: number, type: string, body: string): void {
  if (response.headersSent) return void response.end();
  response.writeHead(code, { 'content-type': type }).end(body);
}
