/**
 * Puts the settings together: flags, then environment, then ibex.yaml, then defaults.
 *
 * The result is all that the rest of Ibex knows about configuration. No error or warning contains a
 * password. Neighbours: options.ts (the schema), layers.ts (flags, environment), file.ts (ibex.yaml),
 * syncs.ts (who copies what to whom).
 */

import { isIPv4 } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, resolve } from 'node:path';
import { IbexError } from '../core/errors.ts';
import { hasPassword } from '../postgres/url.ts';
import { type ConfigFile, NO_FILE, readConfigFile, refusal } from './file.ts';
import { fromEnvironment, fromFlags, type Settings } from './layers.ts';
import { envOf, flagOf, listOptions, type OptionName, type Options, optionSchema } from './options.ts';
import { type RedisConfig, redisConfig } from './redis.ts';
import { mainSync, type SyncConfig, syncsOfFile } from './syncs.ts';

/** The points of a cutover at which something of the user's can be run. */
const HOOKS = ['before_fence', 'after_fence', 'after_drain', 'after_switch', 'on_abort'] as const;

/** Everything that can be set, read and checked. */
export interface Config {
  /** At least one. */
  syncs: SyncConfig[];
  /** Undefined: the queue is inside the process. */
  redis: RedisConfig | undefined;
  /** Undefined: no HTTP. A host beyond loopback comes with a token only. */
  listen: { host: string; port: number } | undefined;
  httpToken: string | undefined;
  logLevel: Options['log_level'];
  logFormat: Options['log_format'];
  json: boolean;
  /** Of 1,000,000 bytes, over all jobs of the process; undefined: no limit. */
  limitMbps: number | undefined;
  /** So many sessions of others may be active on the source before copying holds back; 0: it never does. */
  busySessions: number;
  /** An absolute path. */
  spoolDir: string;
  /** How existing rows are copied. */
  copying: {
    jobs: number;
    maxSourceConnections: number;
    existing: Options['existing'];
  };
  /** How long one try to arm a table waits for its lock. */
  lockTimeoutMs: number;
  /** A table with more unread changes than that is staged on the target piece by piece. */
  stageAbove: number;
  /** How long `setup` keeps trying to arm. */
  armTimeoutMs: number;
  /** What the application connects with, for `doctor` to look at; undefined: it does not. */
  appUrl: string | undefined;
  /** The database that a rehearsal may use; undefined: none. */
  scratchUrl: string | undefined;
  /** What is run at certain points of a cutover or rollback, by name: a URL or a command. */
  hooks: Partial<Record<(typeof HOOKS)[number], string>>;
  /** How long `wait` waits, and `verify` for rows to settle. */
  timeoutMs: number;
  /** Sentences to show to the user once. */
  warnings: string[];
}

export interface ConfigInput {
  /** By name in camel case, as commander has them; keys that are no options belong to the command itself. */
  flags: Record<string, unknown>;
  env: NodeJS.ProcessEnv;
  /** Where ibex.yaml is looked for, and where relative paths of flags and environment start. */
  cwd: string;
  /** The command works with one side too: of two URLs one may be missing, and fails when it is used. */
  oneSided?: boolean;
}

/**
 * Reads all settings. URLs are only looked up when `resolveUrl` is called.
 * @throws IbexError `config` for anything unknown, wrong, missing or ambiguous
 */
export function loadConfig({ flags, env, cwd, oneSided = false }: ConfigInput): Config {
  const calls = { ...fromEnvironment(env, cwd), ...fromFlags(flags, cwd) };
  const { file, directory } = readFile(calls, cwd);
  const settings = { ...fromFile(file, directory), ...calls };
  const options = readOptions(settings);
  checkToken(settings, options);
  return {
    syncs:
      file.syncs.length > 0
        ? syncsOfFile(file, settings, options, { directory, env })
        : [mainSync(settings, options, env, oneSided)],
    redis: redisConfig(settings, options),
    listen: options.listen,
    httpToken: options.http_token,
    logLevel: options.log_level,
    logFormat: options.log_format,
    json: options.json,
    limitMbps: options.limit_mbps,
    busySessions: options.busy_sessions,
    spoolDir: resolve(settings.spool_dir?.base ?? cwd, options.spool_dir ?? tmpdir()),
    copying: {
      jobs: options.jobs,
      maxSourceConnections: options.max_source_connections,
      existing: options.existing,
    },
    lockTimeoutMs: options.lock_timeout_ms,
    stageAbove: options.stage_above,
    armTimeoutMs: options.arm_timeout,
    appUrl: options.app_url,
    scratchUrl: options.scratch_url,
    hooks: Object.fromEntries(
      HOOKS.flatMap((name) => {
        const hook = options[`hook_${name}`];
        return hook === undefined ? [] : [[name, hook]];
      }),
    ),
    timeoutMs: options.timeout,
    warnings: warningsAbout(flags),
  };
}

function readFile({ config }: Settings, cwd: string): { file: ConfigFile; directory: string } {
  const name = String(config?.value ?? 'ibex.yaml');
  const path = resolve(cwd, name);
  const file = readConfigFile(path, name);
  if (!file && config) throw new IbexError('config', `${config.place}: there is no file ${name}`);
  return { file: file ?? NO_FILE, directory: dirname(path) };
}

function fromFile({ options, locate }: ConfigFile, base: string): Settings {
  const settings: Settings = {};
  for (const { name } of listOptions()) {
    const value = options[name];
    if (value !== undefined) settings[name] = { value, place: locate([name]), base, inFile: true };
  }
  return settings;
}

function readOptions(settings: Settings): Options {
  const raw = Object.fromEntries(Object.entries(settings).map(([name, { value }]) => [name, value]));
  const parsed = optionSchema.safeParse(raw);
  if (parsed.success) return parsed.data;
  throw refusal(parsed.error, ([name]) => settings[name as OptionName]?.place ?? String(name));
}

function checkToken(settings: Settings, { listen, http_token }: Options): void {
  if (!listen || http_token !== undefined) return;
  const { host } = listen;
  if (host === 'localhost' || host === '::1' || (isIPv4(host) && host.startsWith('127.'))) return;
  throw new IbexError(
    'config',
    `${settings.listen?.place}: ${host} can be reached from outside, so a token is needed`,
    {
      hint: `Set ${envOf('http_token')}, or listen on 127.0.0.1.`,
    },
  );
}

/** What stands in a flag, everybody on the machine can read in the list of processes. */
function warningsAbout(flags: Record<string, unknown>): string[] {
  const shown = (name: OptionName, secret: string) =>
    `${flagOf(name)} shows its ${secret} in the list of processes; use ${envOf(name)} or a file instead`;
  const given = {
    source: flags.source,
    target: flags.target,
    redis: flags.redis,
    app_url: flags.appUrl,
    scratch_url: flags.scratchUrl,
  };
  const urls = (Object.keys(given) as (keyof typeof given)[]).filter((name) =>
    hasPassword(String(given[name] ?? '')),
  );
  return [
    ...urls.map((name) => shown(name, 'password')),
    ...(flags.httpToken === undefined ? [] : [shown('http_token', 'token')]),
  ];
}
