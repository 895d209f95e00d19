/** A batch as it comes off the source, kept so that a test can deliver it as it likes. */
import { tmpdir } from 'node:os';
import { DeltaReader } from '../../src/capture/trigger/reader.ts';
import type { BatchHeader, BatchPart } from '../../src/core/batch.ts';
import { readRoster } from '../../src/engine/roster.ts';
import { readIdentity } from '../../src/postgres/catalog.ts';
import { Session } from '../../src/postgres/session.ts';
import { createInProcessQueue } from '../../src/queue/in-process.ts';
import type { Databases } from './servers.ts';

export interface RecordedBatch {
  readonly header: BatchHeader;
  readonly parts: readonly BatchPart[];
}

/** Reads what is new since the checkpoint, while no daemon runs. All tables are to be in step. */
export async function recordBatch({ sourceUrl, targetUrl, target }: Databases): Promise<RecordedBatch> {
  await using reading = await Session.open({ url: sourceUrl, name: 'test' });
  await using control = await Session.open({ url: sourceUrl, name: 'test' });
  await using side = await Session.open({ url: targetUrl, name: 'test' });
  const queue = createInProcessQueue();
  const parts: BatchPart[] = [];
  queue.consume(async (batch) => {
    for await (const { table, bytes } of batch.parts()) parts.push({ table, bytes: Buffer.from(bytes) });
    return { id: batch.header.id, position: batch.header.to };
  });
  const identity = await readIdentity(reading);
  const reader = new DeltaReader({ reading, control, identity, queue, spoolDirectory: tmpdir() });
  const roster = await readRoster(reading, side, { name: 'main', carry: [], keyless: 'carry' });
  const tables = roster.flatMap(({ plan }) => (plan === null ? [] : [{ plan, floor: null }]));
  const { rows } = await target.query('select position, epoch::int from ibex.checkpoint');
  const { position: from, epoch } = rows[0];
  const request = { sync: 'main', epoch, id: `${epoch}-test`, from, tables, evenIfEmpty: false };
  const { published } = await reader.read(request);
  await published?.applied;
  await queue.close();
  if (published === null) throw new Error('nothing is new');
  return { header: published.header, parts };
}
