/** What a scenario wants drawn. How it looks is the business of the module of its kind beside this one. */

interface Titled {
  /** Goes into the name of the file: lower-case letters, digits and hyphens. */
  readonly name: string;
  /** What is seen, in a few words. */
  readonly title: string;
  /** What else must be known to read it: what is divided by what, the load, the unit. */
  readonly subtitle: string;
}

/** One horizontal bar for each value. */
export interface Bars extends Titled {
  readonly kind: 'bars';
  /** Stands behind each value, such as `x` or ` s`. */
  readonly unit: string;
  readonly bars: readonly {
    readonly label: string;
    readonly value: number;
    /** The smallest and largest of the runs, where there were several. */
    readonly spread?: readonly [number, number];
    /** Ibex stands out; the others recede. */
    readonly ours: boolean;
  }[];
  /** A line across all bars, such as where both are equal. */
  readonly reference?: { readonly value: number; readonly label: string };
}

/** Values over something that goes on, such as time. */
export interface Lines extends Titled {
  readonly kind: 'lines';
  /** What the axes are, with their units: `seconds of load`, `lag, ms`. */
  readonly x: string;
  readonly y: string;
  readonly series: readonly {
    /** Written at the end of the line. */
    readonly label: string;
    /** In the order of `x`. */
    readonly points: readonly (readonly [x: number, y: number])[];
    readonly ours: boolean;
  }[];
}

export type Plot = Bars | Lines;
