/** `ibex verify`: compares both sides while they are in use, and repairs through the stream if asked to. */
import { writeFileSync } from 'node:fs';
import { performance } from 'node:perf_hooks';
import { Option } from 'commander';
import { requireRecord } from '../apply/state.ts';
import { IbexError } from '../core/errors.ts';
import { LINE_EVERY_MS, percentText } from '../observe/progress-text.ts';
import { stderrScreen } from '../observe/screen.ts';
import { readDaemon } from '../observe/status.ts';
import { shareText } from '../observe/units.ts';
import { requireHistory } from '../setup/history.ts';
import { recordVerdict } from '../verify/record.ts';
import { continuedText, reportPage, reportText, type VerifyReport } from '../verify/report.ts';
import { verify as compare, type Progress } from '../verify/verify.ts';
import {
  type CommandSpec,
  type Context,
  type ExitCode,
  onlySync,
  openSession,
  print,
  requireKnown,
  tableFilter,
  withBothSides,
} from './command.ts';

export const verify: CommandSpec = {
  name: 'verify',
  summary: 'compare source and target while both are in use',
  description:
    'Compares every row of every table, and the sequences, by checksums that the servers make. What differs at first is looked at row by row until it is settled, so that changes under way raise no alarm. A call that was stopped or killed is gone on with by the next one. Exit 0 when all of it is equal; 1 when something differs, with the rows named, or could not be settled.',
  options: ['tables', 'exclude', 'jobs', 'limit_mbps', 'timeout', 'json'],
  own: [
    new Option('--sample <SHARE>', 'compare only so much of each table, such as 5%, chosen at random'),
    new Option('--repair', 'have the daemon carry anew what differs, and look at it again'),
    new Option('--restart', 'compare all of it, also what a call that did not come to its end has compared'),
    new Option('--out <FILE>', 'write the result to FILE as JSON, and as a page to FILE.md'),
  ],
  run: async (context) => {
    const { config, flags } = context;
    const sample = shareOf(flags.sample);
    const out = flags.out as string | undefined;
    const report = await run(context, sample);
    if (out !== undefined) writeReport(out, report);
    print(config.json, report, reportText(report));
    return (report.verdict === 'equal' ? 0 : 1) as ExitCode;
  },
};

/** From `5%`: 0.05. */
function shareOf(given: unknown): number {
  if (given === undefined) return 1;
  const percent = /^(\d+(?:\.\d+)?)%$/.exec(String(given))?.[1];
  if (percent !== undefined && Number(percent) > 0 && Number(percent) <= 100) return Number(percent) / 100;
  throw new IbexError('config', '--sample: must be a share above 0% and up to 100%, such as 5%');
}

function run(context: Context, sample: number): Promise<VerifyReport> {
  const { config, flags, signal } = context;
  return withBothSides(onlySync(config), 'verify', async (source, target, sync) => {
    await requireRecord(target, sync.name);
    await requireHistory(source, target, sync.name);
    await requireKnown(target, sync);
    const progress = showProgress(context);
    try {
      const report = await compare(source, target, {
        wishes: sync,
        filter: tableFilter(sync),
        some: sync.asked.tables.length + sync.asked.exclude.length > 0,
        sample,
        repair: flags.repair === true,
        jobs: config.copying.jobs,
        bytesPerSecond: config.limitMbps === undefined ? null : config.limitMbps * 1_000_000,
        settleMs: config.timeoutMs,
        signal,
        isRunning: async () => (await readDaemon(target, sync.name)) !== null,
        open: (side) => openSession(sync, side, 'verify'),
        onProgress: progress.show,
        keeping: {
          asked: { ...sync.asked, sample },
          restart: flags.restart === true,
          onContinued: (continued) => context.log.info(`${continuedText(continued)}; --restart compares all`),
        },
      });
      if (sync.asked.tables.length + sync.asked.exclude.length === 0) await recordVerdict(target, report);
      return report;
    } catch (error) {
      if (!signal.aborted) throw error;
      throw new IbexError('transient', 'the comparison was stopped: nothing is known of the rest', {
        hint: 'Run it again: it goes on with what was not compared yet.',
      });
    } finally {
      progress.end();
    }
  });
}

function writeReport(file: string, report: VerifyReport): void {
  try {
    writeFileSync(file, `${JSON.stringify(report, null, 2)}\n`);
    writeFileSync(`${file}.md`, reportPage(report));
  } catch (error) {
    throw new IbexError('config', `--out: ${(error as Error).message}`, {
      hint: 'Name a file that can be written.',
    });
  }
}

/** One line that renews itself on a terminal, otherwise a line of the log now and then. */
function showProgress({ config, log }: Context) {
  const { CI, TERM } = process.env;
  const onTerminal = process.stderr.isTTY === true && !CI && TERM !== 'dumb' && !config.json;
  let saidAt = performance.now();
  const show = ({ ranges, bytes }: Progress) => {
    const text =
      `compared ${shareText(bytes.done, bytes.all)} (${percentText(bytes.done, bytes.all)}), ` +
      `${ranges.done} of ${ranges.all} ranges`;
    if (onTerminal) stderrScreen.show([text]);
    else if (performance.now() - saidAt >= LINE_EVERY_MS) {
      saidAt = performance.now();
      log.info({ ranges, bytes }, text);
    }
  };
  return { show, end: () => onTerminal && stderrScreen.clear() };
}
