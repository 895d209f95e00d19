/**
 * Where more than two nodes are written, each in step with its neighbours alone, the rules of all syncs together must come
 * to an end. Refuses those by which rows of two nodes could go back and forth between them for ever.
 */
import type { ConflictRule, ConflictRules } from '../core/conflict.ts';
import { IbexError } from '../core/errors.ts';
import type { TablePattern } from '../core/patterns.ts';

/** A sync between two nodes with its rules. */
export interface RuledSync {
  readonly between: readonly [string, string];
  /** Undefined: every table. */
  readonly tables: readonly TablePattern[] | undefined;
  readonly rules: ConflictRules;
}

/** Errors: `config` with the rule that does not go together with the other syncs of one of its nodes. */
export function checkTrees(syncs: readonly RuledSync[]): void {
  for (const sync of syncs) {
    for (const node of sync.between) {
      const others = syncs.filter(
        (other) => other !== sync && other.between.includes(node) && mayShare(sync, other),
      );
      if (others.length > 0) checkNode(node, sync, others);
    }
  }
}

/**
 * A node in the middle carries on rows with the time of their change. By `oldest` such a row takes the place of a newer one
 * there, whose own time may still be asked for: its two neighbours would not compare the same times.
 *
 * A neighbour to which it yields whatever the rows are insists on its own row whenever it meets another; if it gives way to a
 * second neighbour as well, the rows of the two take turns on it.
 */
function checkNode(node: string, sync: RuledSync, others: readonly RuledSync[]): void {
  const rules = everyRule(sync);
  const oldest = rules.find(({ strategy }) => strategy === 'oldest');
  if (oldest !== undefined) {
    throw new IbexError(
      'config',
      `${oldest.place}: oldest decides between two nodes only, and here are more`,
      { hint: 'Take newest, column, priority or function where more than two nodes are written.' },
    );
  }
  const yields = rules.find((rule) => winnerOf(rule, sync) === neighbour(sync, node));
  const second = others.find((other) => everyRule(other).some((rule) => mayYield(rule, other, node)));
  if (yields === undefined || second === undefined) return;
  throw new IbexError(
    'config',
    `${yields.place}: ${node} yields to ${neighbour(sync, node)} by it, and may yield to ${neighbour(second, node)} too`,
    {
      hint: 'By source, target and priority a node can yield to one neighbour only; turn one of them round, or take newest.',
    },
  );
}

function neighbour({ between: [first, second] }: RuledSync, node: string): string {
  return node === first ? second : first;
}

/** The node whose row stands whatever the rows are; undefined where that depends on them, or on a person. */
function winnerOf({ strategy, nodes }: ConflictRule, { between: [first, second] }: RuledSync) {
  if (strategy === 'source') return first;
  if (strategy === 'target') return second;
  return strategy === 'priority' ? nodes[0] : undefined;
}

function mayYield(rule: ConflictRule, sync: RuledSync, node: string): boolean {
  if (rule.strategy === 'hold' || rule.strategy === 'abort') return false;
  return winnerOf(rule, sync) !== node;
}

function everyRule({ rules: { all, tables } }: RuledSync): ConflictRule[] {
  return [all, ...tables].flatMap(({ rule, types }) => [rule, ...Object.values(types)]);
}

/** Whether a table may be carried by both. */
function mayShare({ tables: left }: RuledSync, { tables: right }: RuledSync): boolean {
  if (left === undefined || right === undefined) return true;
  return left.some((one) =>
    right.some((other) => mayMeet(one.schema, other.schema) && mayMeet(one.table, other.table)),
  );
}

type NamePattern = TablePattern['schema'];

function mayMeet(left: NamePattern, right: NamePattern): boolean {
  if (left.exact !== undefined) return right.regexp.test(left.exact);
  return right.exact === undefined || left.regexp.test(right.exact);
}
