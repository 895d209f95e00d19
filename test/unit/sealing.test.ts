import { describe, expect, it } from 'vitest';
import { decodeFrame, FrameBuilder } from '../../src/queue/frames.ts';
import { frameSeal } from '../../src/queue/sealing.ts';

const KEY = Buffer.alloc(32, 1);
const ROW = 'a row that nobody should read';

function frames(): Buffer[] {
  const builder = new FrameBuilder();
  builder.add(0, 3, Buffer.from(ROW));
  builder.add(1, 0, Buffer.alloc(0));
  return builder.take(1_000_000);
}

const refused = expect.objectContaining({ kind: 'queue', retry: 'timed' });

describe('a sealed frame', () => {
  it('is opened by another process with the same key, and has nothing readable in it', () => {
    const writer = frameSeal('ibex:{main}:1', KEY);
    const reader = frameSeal('ibex:{main}:1', KEY);
    for (const frame of frames()) {
      const entry = writer.seal(frame);
      expect(entry.includes(ROW.slice(0, 6))).toBe(false);
      expect(reader.open(entry)).toEqual(frame);
    }
    expect(decodeFrame(reader.open(writer.seal(frames()[0] as Buffer)))).toMatchObject({
      table: 3,
      sequence: 0,
    });
  });

  it('differs from batch to batch, though the rows are the same', () => {
    const [frame] = frames() as [Buffer];
    expect(frameSeal('b', KEY).seal(frame)).not.toEqual(frameSeal('b', KEY).seal(frame));
  });

  it('is refused when any byte of it was changed', () => {
    const [frame] = frames() as [Buffer];
    const entry = frameSeal('b', KEY).seal(frame);
    for (let at = 0; at < entry.length; at++) {
      const changed = Buffer.from(entry);
      changed[at] = (changed[at] as number) ^ 1;
      expect(() => frameSeal('b', KEY).open(changed), `byte ${at}`).toThrow(refused);
    }
    for (const short of [0, 10, entry.length - 1])
      expect(() => frameSeal('b', KEY).open(entry.subarray(0, short))).toThrow(refused);
  });

  it('is refused in another batch, with another key, and without one; and so is one that was not sealed', () => {
    const [frame] = frames() as [Buffer];
    const entry = frameSeal('b', KEY).seal(frame);
    expect(() => frameSeal('c', KEY).open(entry)).toThrow(refused);
    expect(() => frameSeal('b', Buffer.alloc(32, 2)).open(entry)).toThrow(refused);
    expect(() => frameSeal('b', undefined).open(entry)).toThrow(refused);
    expect(() => frameSeal('b', KEY).open(frame)).toThrow(refused);
    expect(frameSeal('b', undefined).open(frameSeal('b', undefined).seal(frame))).toEqual(frame);
  });
});
