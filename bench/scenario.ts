/**
 * What a scenario is to the rest: a name, options with defaults, and a run that ends in figures and a screen.
 * A run whose databases came out different has no figures: then `ok` is false, and so is the exit code.
 */

export type OptionSpec =
  | { readonly kind: 'number'; readonly default: number; readonly help: string }
  | { readonly kind: 'flag'; readonly help: string };

export type OptionSpecs = Readonly<Record<string, OptionSpec>>;

export type OptionValues<S extends OptionSpecs> = {
  readonly [K in keyof S]: S[K]['kind'] extends 'flag'
    ? boolean
    : S[K]['kind'] extends 'number'
      ? number
      : boolean | number;
};

export interface Outcome {
  /** Versions and settings of the servers that ran. */
  readonly servers: object;
  /** Goes into the JSON document: every single measurement and what was made of them. */
  readonly figures: object;
  /** The same for a person, line by line. */
  readonly screen: readonly string[];
  readonly ok: boolean;
}

export interface Scenario<S extends OptionSpecs = OptionSpecs> {
  readonly name: string;
  readonly summary: string;
  readonly options: S;
  run(options: OptionValues<S>): Promise<Outcome>;
}

/** Says on stderr what is being done; stdout is for the result. */
export function say(text: string): void {
  process.stderr.write(`${new Date().toISOString().slice(11, 19)} ${text}\n`);
}
