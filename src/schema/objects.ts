/** What a database consists of beside its rows, as things that can be compared and made. Pure. */

/** - `pre-data`: what rows are written into. - `post-data`: what is better made when the rows are there. */
export type Section = 'pre-data' | 'post-data';

export interface SchemaObject {
  /** As in CREATE, lower case. */
  readonly kind: string;
  /** Tells it from others of its kind. */
  readonly name: string;
  readonly section: Section;
  /** What makes it, one statement or several; null where only pg_dump would know. */
  readonly statement: string | null;
  /** Of an index of a partition: the partitioned index that it belongs to, and the partition. */
  readonly under: { readonly index: string; readonly table: string } | null;
}

export interface SchemaDifference {
  /** On the source only. */
  readonly missing: readonly SchemaObject[];
  /** On both, made by another statement. */
  readonly different: readonly { readonly source: SchemaObject; readonly target: SchemaObject }[];
  /** On the target only. */
  readonly extra: readonly SchemaObject[];
}

/** What the target has, and has only set aside. */
export interface TargetObjects {
  readonly objects: readonly SchemaObject[];
  /** Identities of what a sync has disabled or dropped there until it is put back. */
  readonly aside: ReadonlySet<string>;
  /** `index table` of partitions that have an index of their own under a partitioned one, whatever it is called. */
  readonly covered: ReadonlySet<string>;
}

/** Two objects with the same identity are versions of the same thing. */
export function identityOf({ kind, name }: Pick<SchemaObject, 'kind' | 'name'>): string {
  return `${kind} ${name}`;
}

/** Whether the partition has such an index, whatever it is called. */
export function isCovered({ under }: SchemaObject, covered: TargetObjects['covered']): boolean {
  return under !== null && covered.has(`${under.index} ${under.table}`);
}

export function compareObjects(source: readonly SchemaObject[], target: TargetObjects): SchemaDifference {
  const there = new Map(target.objects.map((object) => [identityOf(object), object]));
  const here = new Set(source.map(identityOf));
  const isAside = (object: SchemaObject) => target.aside.has(identityOf(object));
  return {
    missing: source.filter(
      (object) => !there.has(identityOf(object)) && !isAside(object) && !isCovered(object, target.covered),
    ),
    different: source.flatMap((object) => {
      const counterpart = there.get(identityOf(object));
      if (counterpart === undefined || isAside(object)) return [];
      return counterpart.statement === object.statement ? [] : [{ source: object, target: counterpart }];
    }),
    extra: target.objects.filter((object) => !here.has(identityOf(object)) && object.under === null),
  };
}
