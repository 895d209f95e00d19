/** Has a server of a test answer with a certificate, and admit whom the test says. */
import { chownSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type pg from 'pg';
import type { Cluster } from '../../src/embedded/cluster.ts';
import type { Certificate } from './certificates.ts';
import { waitFor } from './servers.ts';

export interface TlsOptions {
  readonly certificate: Certificate;
  /** PEM of the authority of clients' certificates. */
  readonly clients: string;
  /** Lines of pg_hba.conf, after one that admits the superuser. */
  readonly admit: string;
}

/** `admin` is a superuser's. Resolves once new sessions find it so. */
export async function serveTls(
  cluster: Cluster,
  admin: pg.Client,
  { certificate, clients, admit }: TlsOptions,
): Promise<void> {
  const data = join(cluster.directory, 'data');
  const { uid, gid } = statSync(data);
  const write = (name: string, text: string) => {
    writeFileSync(join(data, name), text, { mode: 0o600 });
    chownSync(join(data, name), uid, gid);
  };
  write('server.crt', certificate.cert);
  write('server.key', certificate.key);
  write('clients.crt', clients);
  const { rows } = await admin.query('select clock_timestamp() as asked');
  write('pg_hba.conf', `host all postgres 127.0.0.1/32 scram-sha-256\n${admit}\n`);
  await admin.query(`alter system set ssl_ca_file = 'clients.crt'`);
  await admin.query('alter system set ssl = on');
  await admin.query('select pg_reload_conf()');
  // Each session reads the configuration when the postmaster has.
  await waitFor(
    async () =>
      (await admin.query('select pg_conf_load_time() > $1 as is_read', [rows[0].asked])).rows[0].is_read,
    { what: 'the server to read its configuration', timeout: 60_000 },
  );
}
