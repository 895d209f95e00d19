/**
 * What flags and environment say, unchecked but with the place it stands in.
 *
 * A layer knows names only; options.ts knows what a value may be. Neighbours: load.ts puts the layers
 * together, file.ts is the third one.
 */

import { IbexError } from '../core/errors.ts';
import { flagOf, listOptions, type OptionName } from './options.ts';

export interface Setting {
  readonly value: unknown;
  /** As messages name it: `--log-level`, `IBEX_LOG_LEVEL`, `ibex.yaml line 3, log_level`. */
  readonly place: string;
  /** The directory that a relative path in the value starts from. */
  readonly base: string;
  /** It stands in the file, and so for every call. */
  readonly inFile?: true;
}

export type Settings = { [Name in OptionName]?: Setting };

/** @param flags by name in camel case, as commander has them; keys that are no options are left alone */
export function fromFlags(flags: Record<string, unknown>, base: string): Settings {
  const settings: Settings = {};
  for (const { name } of listOptions()) {
    const value = flags[name.replace(/_(.)/g, (_match, letter: string) => letter.toUpperCase())];
    if (value !== undefined) settings[name] = { value, place: flagOf(name), base };
  }
  return settings;
}

/**
 * An empty variable counts as not set.
 * @throws IbexError `config` for an unknown IBEX_ variable, or two that say where one URL is
 */
export function fromEnvironment(env: NodeJS.ProcessEnv, base: string): Settings {
  const settings: Settings = {};
  const known: string[] = [];
  for (const { name, info } of listOptions()) {
    const suffixes = name === 'source' || name === 'target' ? ['', '_FILE', '_COMMAND'] : [''];
    for (const suffix of suffixes) {
      const place = info.env + suffix;
      known.push(place);
      const text = env[place];
      if (!text) continue;
      const other = settings[name]?.place;
      if (other) throw new IbexError('config', `${other} and ${place} are both set; unset one`);
      const value = suffix === '' ? text : { [`url${suffix.toLowerCase()}`]: text };
      settings[name] = { value, place, base };
    }
  }
  const stranger = Object.keys(env).find(
    (key) => key.startsWith('IBEX_') && !known.includes(key) && !isServiceLink(key) && !isHookFact(key),
  );
  if (stranger) {
    throw new IbexError('config', `${stranger}: not a known variable; known are ${known.join(', ')}`);
  }
  return settings;
}

/** What a hook of a cutover is told, which may call us. */
function isHookFact(key: string): boolean {
  return /^IBEX_(PHASE|RUN|COMMAND|NEW_SIDE|(SOURCE|TARGET)_(HOST|PORT|DATABASE))$/.test(key);
}

/** Kubernetes gives every pod IBEX_PORT_8642_TCP=.. and the like when a service is called ibex or ibex-*. */
function isServiceLink(key: string): boolean {
  return /^IBEX_(\w+_)?(SERVICE_HOST|SERVICE_PORT\w*|PORT|PORT_\d+_(TCP|UDP|SCTP)\w*)$/.test(key);
}
