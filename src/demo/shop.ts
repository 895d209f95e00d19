/** The shop's tables and rows: plain SQL in `demo/`, and pgbench's own where pgbench is on the PATH. */
import { accessSync, constants } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { delimiter, isAbsolute, join } from 'node:path';
import { IbexError } from '../core/errors.ts';
import { ROOT } from '../core/root.ts';
import { type Belongings, Program } from './belongings.ts';
import { pgEnvironment } from './environment.ts';
import { connect, type Places } from './servers.ts';

const SQL = new URL('demo/', ROOT);
/** 100,000 accounts each. */
const PGBENCH_SCALE = '2';
const PGBENCH_CLIENTS = '4';
/** Transactions a second: enough to be seen, few enough for a laptop that runs everything else as well. */
const PGBENCH_RATE = '150';

/** Makes the tables on both sides and fills those of the source. */
export async function openShop(places: Places): Promise<void> {
  await Promise.all([
    runFiles(places.source, ['tables.sql', 'rows.sql', 'keys.sql']),
    runFiles(places.target, ['tables.sql', 'keys.sql']),
  ]);
}

async function runFiles(url: string, names: string[]): Promise<void> {
  const client = await connect(url, 'demo:load');
  try {
    for (const name of names) await client.query(await readFile(new URL(name, SQL), 'utf8'));
  } finally {
    await client.end();
  }
}

/** pgbench beside the shop; `undefined` where there is none. */
export class Pgbench {
  readonly #file: string;
  readonly #places: Places;

  static find(places: Places): Pgbench | undefined {
    const directories = (process.env.PATH ?? '').split(delimiter).filter(isAbsolute);
    const file = directories.map((directory) => join(directory, 'pgbench')).find(isExecutable);
    return file === undefined ? undefined : new Pgbench(file, places);
  }

  private constructor(file: string, places: Places) {
    this.#file = file;
    this.#places = places;
  }

  /** Makes its tables on both sides; rows on the source only. */
  async initialise(belongings: Belongings): Promise<void> {
    const initialise = async (side: 'source' | 'target', steps: string) => {
      const program = await this.#start(side, ['-i', '-q', '-s', PGBENCH_SCALE, '-I', steps]);
      belongings.add(() => program.end('SIGKILL', 1_000));
      if ((await program.ended()) !== 0) throw await this.#failure();
    };
    await Promise.all([initialise('source', 'dtgvp'), initialise('target', 'dtp')]);
  }

  /** Runs its standard transactions on the source until ended. */
  async run(): Promise<Program> {
    const forever = String(7 * 24 * 3600);
    return this.#start('source', ['-n', '-c', PGBENCH_CLIENTS, '-R', PGBENCH_RATE, '-T', forever]);
  }

  /** Rejects when it ends without having been asked to; never resolves. */
  async mishap(program: Program): Promise<never> {
    await program.endedByItself();
    throw await this.#failure();
  }

  #start(side: 'source' | 'target', args: string[]): Promise<Program> {
    const env = pgEnvironment(this.#places, side);
    return Program.start('pgbench', this.#file, args, { env, cwd: this.#places.directory, log: this.#log });
  }

  get #log(): string {
    return join(this.#places.directory, 'pgbench.log');
  }

  async #failure(): Promise<IbexError> {
    const said = (await readFile(this.#log, 'utf8')).trimEnd().split('\n').slice(-5).join('\n');
    return new IbexError('tool', `${this.#file} failed: ${said}`);
  }
}

function isExecutable(file: string): boolean {
  try {
    accessSync(file, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}
