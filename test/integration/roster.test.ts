/** Readings of the tables' states that overtake each other: what an older one saw never comes after a newer one. */
import { afterEach, beforeEach, expect, test } from 'vitest';
import { Roster } from '../../src/engine/roster.ts';
import { Session } from '../../src/postgres/session.ts';
import { usePair } from '../support/pair.ts';
import { useServers, waitFor } from '../support/servers.ts';

const servers = await useServers();
const pair = usePair(servers);
let source: Session;
let target: Session;
let other: Session;

beforeEach(async () => {
  await pair.inStep('create table t (id int primary key)');
  await pair.sync.stop();
  const { sourceUrl, targetUrl } = pair.databases;
  source = await Session.open({ url: sourceUrl, name: 'test' });
  target = await Session.open({ url: targetUrl, name: 'test' });
  other = await Session.open({ url: targetUrl, name: 'test' });
});

afterEach(() => Promise.all([source, target, other].map((session) => session.close())));

const setState = (state: string) => pair.target.query('update ibex.target_table set state = $1', [state]);

async function newRoster(): Promise<Roster> {
  const roster = new Roster({ name: 'main', carry: [], keyless: 'carry' });
  await roster.refresh(source, target);
  return roster;
}

const statesOf = (roster: Roster) => roster.tables.map(({ state }) => state);

test('a look at the catalogs that takes long does not bring old states back', async () => {
  const roster = await newRoster();
  await setState('copying');
  const admin = pair.databases.sourceAdmin;
  await admin.query('begin; lock table ibex.captured in access exclusive mode');
  const refreshing = roster.refresh(source, target);
  await waitFor(async () => (await admin.query('select from pg_locks where not granted')).rowCount === 1, {
    what: 'the catalogs to be waited for',
  });
  await setState('streaming');
  await roster.readStates(other);
  expect(statesOf(roster)).toEqual(['streaming']);
  await admin.query('rollback');
  await refreshing;
  expect(statesOf(roster)).toEqual(['streaming']);
});

test('nor does an answer that comes late', async () => {
  const roster = await newRoster();
  await setState('copying');
  let answer = () => {};
  const late = new Promise<void>((resolve) => {
    answer = resolve;
  });
  const slow = new Proxy(target, {
    get: (session, name) =>
      name === 'rows'
        ? async (...asked: Parameters<Session['rows']>) => {
            const rows = await session.rows(...asked);
            await late;
            return rows;
          }
        : Reflect.get(session, name),
  });
  const reading = roster.readStates(slow);
  await target.row('select 1');
  await setState('streaming');
  await roster.readStates(other);
  answer();
  await reading;
  expect(statesOf(roster)).toEqual(['streaming']);
});
