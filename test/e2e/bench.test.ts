/**
 * The benchmark as its user has it: that it goes through, on private servers, on those of others, and beside Bucardo,
 * and leaves nothing. What the figures are is no matter here.
 */
import { randomBytes } from 'node:crypto';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pg from 'pg';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { BUCARDO, choosePeers } from '../../bench/peers.ts';
import type { Cluster } from '../../src/embedded/cluster.ts';
import { ibex } from '../support/ibex.ts';
import { useServers } from '../support/servers.ts';

interface Document {
  readonly ok: boolean;
  readonly contract: object;
  readonly scenarios: readonly {
    readonly scenario: string;
    readonly ok: boolean;
    readonly leftOut: readonly { readonly peer: string; readonly why: string }[];
    readonly figures: { readonly figures?: readonly { readonly who: string }[] };
  }[];
}

let out: string;

beforeEach(() => {
  out = mkdtempSync(join(tmpdir(), 'ibex-bench-out-'));
});

afterEach(() => {
  rmSync(out, { recursive: true });
});

/** Runs the benchmark; gives what it wrote into the directory of `--out`. */
async function bench(...args: string[]): Promise<Document> {
  const { code, stderr } = await ibex(['bench', ...args, '--out', out], { timeout: 280_000 });
  expect(code, stderr).toBe(0);
  return JSON.parse(readFileSync(join(out, 'report.json'), 'utf8'));
}

const SMALL = ['catch-up', '--transactions', '200', '--scale', '1', '--repeat', '1'];

function whoIn(document: Document): string[] {
  return document.scenarios.flatMap(({ figures }) => figures.figures?.map(({ who }) => who) ?? []);
}

test('smoke goes through the main scenarios, and writes the whole report', async () => {
  const document = await bench('smoke', '--peers', 'native');
  expect(document.ok).toBe(true);
  expect(document.scenarios.map(({ scenario }) => scenario)).toEqual(
    expect.arrayContaining(['overhead', 'catch-up', 'hot', 'backfill']),
  );
  expect(whoIn(document)).toEqual(expect.arrayContaining(['ibex', 'native']));
  const files = readdirSync(out);
  const linked = Array.from(
    readFileSync(join(out, 'report.md'), 'utf8').matchAll(/^!\[.+\]\((.+)\)$/gm),
    ([, file]) => file,
  );
  expect(linked).toContain('catch-up-seconds.svg');
  expect(files).toEqual(expect.arrayContaining(linked));
});

describe('on the servers of others', async () => {
  const servers = await useServers();

  async function asSuperuser<T>(
    { superuserUrl }: Cluster,
    work: (client: pg.Client) => Promise<T>,
  ): Promise<T> {
    const client = new pg.Client(superuserUrl);
    await client.connect();
    try {
      return await work(client);
    } finally {
      await client.end();
    }
  }

  /** A role on both sides; gives the option with both URLs. */
  async function against(right: 'createdb' | 'nocreatedb'): Promise<string> {
    const name = `guest_${randomBytes(4).toString('hex')}`;
    for (const cluster of [servers.source, servers.target]) {
      await asSuperuser(cluster, (client) =>
        client.query(`create role ${name} login ${right} password 'guest'`),
      );
    }
    const url = (cluster: Cluster) => cluster.url({ user: name, password: 'guest', database: 'postgres' });
    return `${url(servers.source)},${url(servers.target)}`;
  }

  /** All that a call could leave: databases, roles, slots. */
  const readBelongings = () =>
    Promise.all(
      [servers.source, servers.target].map((cluster) =>
        asSuperuser(cluster, async (client) => {
          const { rows } = await client.query<{ name: string }>(
            `select 'database ' || datname as name from pg_database union all
             select 'role ' || rolname from pg_roles union all
             select 'slot ' || slot_name from pg_replication_slots order by 1`,
          );
          return rows.map(({ name }) => name);
        }),
      ),
    );

  test('it works in databases of its own, by a role without more rights, and leaves none', async () => {
    const urls = await against('createdb');
    const before = await readBelongings();
    const document = await bench(...SMALL, '--against', urls);
    expect(whoIn(document)).toEqual(['ibex']);
    expect(document.scenarios[0]?.leftOut).toContainEqual({
      peer: 'native',
      why: 'needs superusers on both servers',
    });
    expect(await readBelongings()).toEqual(before);
  });

  test('it asks for the right to make databases before it does anything', async () => {
    const { code, stderr } = await ibex(['bench', ...SMALL, '--against', await against('nocreatedb')]);
    expect(code).toBe(3);
    expect(stderr).toMatch(
      /^error: guest_\w+ may not create databases on .*\n {2}.*alter role guest_\w+ createdb\n$/,
    );
  });
});

describe('beside Bucardo', () => {
  const [lacking] = choosePeers([BUCARDO], ['bucardo']).leftOut;

  test('it is measured, comes out equal, and leaves no files and no process', async (context) => {
    if (lacking !== undefined) return context.skip(lacking.why);
    const directories = () => readdirSync(tmpdir()).filter((name) => name.startsWith('ibex-bench-bucardo-'));
    const before = directories();
    const document = await bench(...SMALL, '--peers', 'bucardo');
    expect(whoIn(document)).toEqual(['ibex', 'native', 'bucardo']);
    expect(document.ok).toBe(true);
    expect(directories()).toEqual(before);
    expect(processesOfBucardo()).toEqual([]);
  });
});

/** Those that work in a directory of the benchmark. */
function processesOfBucardo(): string[] {
  return readdirSync('/proc').filter((pid) => {
    try {
      const environment = /^\d+$/.test(pid) ? readFileSync(`/proc/${pid}/environ`, 'utf8') : '';
      return environment.includes(`HOME=${join(tmpdir(), 'ibex-bench-bucardo-')}`);
    } catch {
      return false;
    }
  });
}
