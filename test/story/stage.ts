/**
 * The stage of a move: a source as Heroku gives one, and a target elsewhere. On the source nobody has any right beyond his
 * own tables, there are twenty connections, and TLS by a certificate that nobody vouches for; the target sorts text
 * otherwise, and its certificate is verified.
 */
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pg from 'pg';
import type { Cluster } from '../../src/embedded/cluster.ts';
import { createAuthority, selfSigned } from '../support/certificates.ts';
import type { Servers } from '../support/servers.ts';
import { serveTls } from '../support/tls.ts';

export type Side = 'source' | 'target';
/** The owner of everything, which Ibex uses too, and the two that the application's processes use. */
export type Role = 'app' | 'web' | 'worker';

const ROLES: readonly Role[] = ['app', 'web', 'worker'];
const CONNECTIONS = 20;
const ADMIT = 'hostssl all all 127.0.0.1/32 scram-sha-256';
const LOCALES: Readonly<Record<Side, string>> = {
  source: `encoding 'UTF8' lc_collate 'C.UTF-8' lc_ctype 'C.UTF-8'`,
  target: `encoding 'UTF8' locale_provider icu icu_locale 'en-US' lc_collate 'C' lc_ctype 'C'`,
};

const text = (name: string) => readFileSync(new URL(name, import.meta.url), 'utf8');
const password = (side: Side, role: Role) => `${role}@${side}:/?#%`;

export class Stage {
  readonly #servers: Servers;
  readonly #directory: string;
  readonly #authority = createAuthority('The provider of the target');
  #runs = 0;
  #database = '';

  constructor(servers: Servers) {
    this.#servers = servers;
    this.#directory = mkdtempSync(join(tmpdir(), 'ibex-story-'));
    chmodSync(this.#directory, 0o755);
    writeFileSync(join(this.#directory, 'ca.crt'), this.#authority.cert);
  }

  /** Once for all runs: certificates and roles. */
  async build(): Promise<void> {
    const certificates = {
      source: selfSigned('heroku', ['127.0.0.1']),
      target: this.#authority.issue('target', ['127.0.0.1']),
    };
    for (const side of ['source', 'target'] as const) {
      await this.#asSuperuser(side, 'postgres', async (admin) => {
        for (const role of ROLES) {
          await admin.query(
            `create role ${role} login nosuperuser noreplication nobypassrls nocreaterole nocreatedb
               password ${pg.escapeLiteral(password(side, role))}`,
          );
        }
        const certificate = certificates[side];
        const clients = this.#authority.cert;
        await serveTls(this.#servers[side], admin, { certificate, clients, admit: ADMIT });
      });
    }
  }

  /** A fresh database on both sides; that of the source with its tables, rows and grants. */
  async open(): Promise<void> {
    this.#database = `shop_${++this.#runs}`;
    for (const side of ['source', 'target'] as const) {
      const limit = side === 'source' ? `connection limit ${CONNECTIONS}` : '';
      await this.#asSuperuser(side, 'postgres', (admin) =>
        admin.query(
          `create database ${this.#database} owner app template template0 ${LOCALES[side]} ${limit}`,
        ),
      );
      await this.#asSuperuser(side, this.#database, (admin) =>
        admin.query('grant all on schema public to app'),
      );
    }
    await this.asOwner('source', async (owner) => {
      for (const file of ['schema.sql', 'grants.sql', 'rows.sql']) await owner.query(text(file));
    });
    this.goLive('source');
  }

  async close(): Promise<void> {
    for (const side of ['source', 'target'] as const) {
      await this.#asSuperuser(side, 'postgres', (admin) =>
        admin.query(`drop database ${this.#database} with (force)`),
      );
    }
  }

  remove(): void {
    rmSync(this.#directory, { recursive: true, force: true });
  }

  /** What the commands are given. */
  get env(): Record<string, string> {
    return {
      IBEX_SOURCE_URL: `${this.#url('source', 'app')}?sslmode=require`,
      IBEX_TARGET_URL: `${this.#url('target', 'app')}?sslmode=verify-full&sslrootcert=${join(this.#directory, 'ca.crt')}`,
    };
  }

  /** The side that the application is told to use, which is told in a file, as it is to processes elsewhere. */
  get live(): Side {
    return readFileSync(this.liveFile, 'utf8').trim() as Side;
  }

  get liveFile(): string {
    return join(this.#directory, 'live');
  }

  goLive(side: Side): void {
    writeFileSync(this.liveFile, side);
  }

  /** A connection that does not end this process when it breaks. */
  async connect(side: Side, role: Role): Promise<pg.Client> {
    const ssl = side === 'source' ? { rejectUnauthorized: false } : { ca: this.#authority.cert };
    const client = new pg.Client({ connectionString: this.#url(side, role), ssl });
    client.on('error', () => undefined);
    await client.connect();
    return client;
  }

  async asOwner<T>(side: Side, work: (owner: pg.Client) => Promise<T>): Promise<T> {
    const owner = await this.connect(side, 'app');
    try {
      return await work(owner);
    } finally {
      await owner.end();
    }
  }

  #url(side: Side, role: Role): string {
    return this.#servers[side].url({
      user: role,
      password: password(side, role),
      database: this.#database,
    });
  }

  async #asSuperuser(
    side: Side,
    database: string,
    work: (admin: pg.Client) => Promise<unknown>,
  ): Promise<void> {
    const cluster: Cluster = this.#servers[side];
    const url = new URL(cluster.superuserUrl);
    url.pathname = database;
    const admin = new pg.Client({ connectionString: url.href });
    await admin.connect();
    try {
      await work(admin);
    } finally {
      await admin.end();
    }
  }
}
