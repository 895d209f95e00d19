/** `ibex cutover` makes the target the side that is live, `ibex rollback` the source again. */
import { createInterface } from 'node:readline/promises';
import { InvalidArgumentError, Option } from 'commander';
import type { Side } from '../apply/live.ts';
import type { SyncConfig } from '../config/syncs.ts';
import { IbexError } from '../core/errors.ts';
import type { MoveEvent, MoveOptions, MoveResult, Proof, Rehearsal } from '../cutover/move/move.ts';
import { type CommandSpec, type Context, type ExitCode, onlySync, print, writeError } from './command.ts';

const HOOK_OPTIONS = [
  'hook_before_fence',
  'hook_after_fence',
  'hook_after_drain',
  'hook_after_switch',
  'hook_on_abort',
] as const;

export const cutover = moveCommand('target', {
  name: 'cutover',
  summary: 'make the target the live side: fence, drain, prove, switch, way back',
  description:
    'Looks at everything first. Then keeps the application from writing to the source, carries what is left, brings the sequences ahead, compares both sides, and opens the target for it; from its first write on the running daemon carries changes back to the source, which stays fenced. Any failure before the switch leaves all as it was. A call that was stopped is undone, or gone on with, by the next one. Prints the proof. Exit 1 when it was refused or given up, with the reason.',
});

export const rollback = moveCommand('source', {
  name: 'rollback',
  summary: 'make the source the live side again: the same procedure, the other way',
  description:
    'After a cutover, at any time: keeps the application from writing to the target, carries back what is left, brings the sequences of the source ahead, compares, and opens the source; the daemon then carries changes to the target again, which stays fenced. What holds for `ibex cutover` holds here.',
});

function moveCommand(to: Side, texts: Pick<CommandSpec, 'name' | 'summary' | 'description'>): CommandSpec {
  return {
    ...texts,
    options: [...HOOK_OPTIONS, 'jobs', 'scratch_url', 'lock_timeout_ms', 'arm_timeout', 'timeout', 'json'],
    own: [
      new Option('--dry-run', 'do everything short of the fence'),
      new Option(
        '--rehearse',
        'the same, then try the fence in the scratch database, and how long the application would wait',
      ).conflicts(['dryRun', 'abort']),
      new Option('--yes', 'do not ask'),
      new Option(
        '--grace <DURATION>',
        'how long to wait for transactions that are open when the fence goes up',
      )
        .default(10_000, '10s')
        .argParser(parseGrace),
      new Option('--terminate', 'end the sessions that are still writing after that, instead of giving up'),
      new Option('--unverified', 'do without a full comparison when there was none in the last 24 hours'),
      new Option('--abort', 'undo what a call left behind that was stopped before the switch'),
    ],
    run: (context) => run(context, to, texts.name),
  };
}

function parseGrace(text: string): number {
  const [, value, unit] = /^(\d+(?:\.\d+)?)(ms|s|m)?$/.exec(text) ?? [];
  if (value === undefined) throw new InvalidArgumentError('It must be a duration such as 500ms, 10s or 2m.');
  return Number(value) * { ms: 1, s: 1_000, m: 60_000 }[(unit ?? 's') as 'ms' | 's' | 'm'];
}

async function run(context: Context, to: Side, name: string): Promise<ExitCode> {
  const { config, flags, signal } = context;
  const sync = onlySync(config);
  const scratch = scratchOf(context);
  const dryRun = flags.dryRun === true || scratch !== null;
  if (!dryRun && !flags.abort) await confirm(context, sync, to, name);
  const events: MoveEvent[] = [];
  const options: MoveOptions = {
    sync,
    to,
    dryRun,
    scratch,
    graceMs: flags.grace as number,
    terminate: flags.terminate === true,
    unverified: flags.unverified === true,
    hooks: config.hooks,
    jobs: config.copying.jobs,
    lockTimeoutMs: config.lockTimeoutMs,
    armTimeoutMs: config.armTimeoutMs,
    timeoutMs: config.timeoutMs,
    signal,
    say: (event) => {
      events.push(event);
      process.stderr.write(`${eventText(event)}\n`);
    },
  };
  const { move, abandon } = await import('../cutover/move/procedure.ts');
  const result = await (flags.abort ? abandon(options) : move(options));
  const { outcome, live, reasons, error, proof, rehearsal } = result;
  const phases = events.filter(({ seconds }) => seconds !== null);
  print(
    config.json,
    { sync: sync.name, outcome, live, reasons, proof, rehearsal, phases },
    resultText(name, result),
  );
  if (error !== null) writeError(error);
  if (outcome === 'done' || outcome === 'rehearsed') return 0;
  return outcome === 'undone' && error === null ? 0 : (error?.exitCode ?? 1);
}

/** The scratch database, if there is to be a rehearsal. Errors: `config` when none is given. */
function scratchOf({ config, flags }: Context): string | null {
  if (!flags.rehearse) return null;
  if (config.scratchUrl !== undefined) return config.scratchUrl;
  throw new IbexError(
    'config',
    'there is no database to rehearse in: set --scratch-url or IBEX_SCRATCH_URL',
    {
      hint: 'Create an empty one, best on a server of the version of the live side, and give its URL.',
    },
  );
}

function eventText({ phase, seconds, text }: MoveEvent): string {
  const took = seconds === null ? '' : `${seconds.toFixed(2)} s`;
  return `${phase.padEnd(10)}${took.padStart(8)}  ${text}`;
}

const SAID: Readonly<Record<MoveResult['outcome'], (live: Side) => string>> = {
  done: (live) => `done: the ${live} is live`,
  rehearsed: (live) => `nothing stands against it; the ${live} stays live, and nothing was fenced`,
  refused: (live) => `refused: the ${live} stays live, and nothing has changed`,
  undone: (live) => `undone: the ${live} is live, as before`,
  unfinished: (live) => `the ${live} is live, and something is left to do`,
};

function resultText(name: string, { outcome, live, reasons, error, proof, rehearsal }: MoveResult): string {
  const again =
    outcome === 'unfinished' && error?.kind !== 'hook' ? [`run \`ibex ${name}\` again to go on`] : [];
  return [
    ...proofLines(proof),
    ...(rehearsal === undefined ? [] : rehearsalLines(rehearsal)),
    `${name} ${SAID[outcome](live)}`,
    ...reasons.map((reason) => `  ! ${reason}`),
    ...again,
  ].join('\n');
}

function proofLines({
  fence,
  applied,
  pending,
  verify,
  sequences,
  account,
  pauseSeconds,
}: Partial<Proof>): string[] {
  if (pauseSeconds === undefined) return [];
  return [
    `  fence       ${fence}`,
    `  applied     ${applied}`,
    `  pending     ${pending}`,
    `  account     ${account?.captured} captured, ${account?.accounted} applied, coalesced or resolved`,
    ...(verify === undefined
      ? []
      : [
          `  verify      ${verify.verdict}: ${verify.tables} tables, ${verify.rows} rows` +
            `${verify.sample < 1 ? `, a sample of ${(verify.sample * 100).toFixed(1)} %` : ''}`,
        ]),
    `  sequences   ${sequences} ahead`,
    `  write pause ${pauseSeconds.toFixed(2)} s`,
  ];
}

function rehearsalLines({ held, ways, untried, pauseSeconds, checkSeconds }: Rehearsal): string[] {
  const roles = untried.length === 0 ? '' : `; not tried as ${untried.join(', ')}`;
  return [
    `  held        ${held} writes, as ${ways.join('; as ')}${roles}`,
    `  write pause ${pauseSeconds.toFixed(2)} s, the comparison and the switch`,
    `  comparison  ${checkSeconds.toFixed(2)} s beside the application; behind a fence it takes less`,
  ];
}

async function confirm({ flags }: Context, sync: SyncConfig, to: Side, name: string): Promise<void> {
  if (flags.yes) return;
  if (!process.stdin.isTTY) {
    throw new IbexError('config', `${name} keeps the application from writing for a while`, {
      hint: 'Say that you mean it with --yes, or try it with --dry-run.',
    });
  }
  const prompt = createInterface({ input: process.stdin, output: process.stderr });
  const answer = await prompt.question(`Make the ${to} of sync ${sync.name} the live side? [y/N] `);
  prompt.close();
  if (!/^y(es)?$/i.test(answer.trim()))
    throw new IbexError('config', 'nothing was changed', { hint: 'Answer y to go on.' });
}
