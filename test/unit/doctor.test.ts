import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { CHECKS } from '../../src/cutover/doctor/finding.ts';
import { recogniseProvider } from '../../src/cutover/doctor/provider.ts';

const NONE = {
  host: 'db.example.org:5432/app',
  roles: ['postgres', 'app'],
  settings: [],
  schemas: ['public'],
};

test.each([
  ['Supabase', { host: 'db.abcdefgh.supabase.co:5432/postgres' }],
  ['Supabase', { host: 'aws-0-eu-central-1.pooler.supabase.com:5432/postgres' }],
  ['Neon', { host: 'ep-cool-1.eu-central-1.aws.neon.tech:5432/app' }],
  ['Heroku Postgres', { host: 'ec2-1-2-3-4.compute-1.amazonaws.com:5432/d', schemas: ['heroku_ext'] }],
  ['Amazon RDS or Aurora', { host: 'x.abc.eu-west-1.rds.amazonaws.com:5432/app' }],
  ['Amazon RDS or Aurora', { roles: ['rds_superuser', 'app'] }],
  ['DigitalOcean', { host: 'db-1-do-user-1.b.db.ondigitalocean.com:25060/defaultdb' }],
  ['Render', { host: 'dpg-abc-a.frankfurt-postgres.render.com:5432/app' }],
  ['Azure Database for PostgreSQL', { settings: ['azure.extensions'] }],
  ['Google Cloud SQL', { roles: ['cloudsqlsuperuser'] }],
  ['Aiven', { host: 'pg-1.aivencloud.com:12345/defaultdb' }],
])('%s is recognised by %j', (name, marks) => {
  expect(recogniseProvider({ ...NONE, ...marks })?.name).toBe(name);
});

test.each([
  { host: 'ec2-1-2-3-4.compute-1.amazonaws.com:5432/app' },
  { host: 'localhost:5432/app.rds.amazonaws.com' },
  { roles: ['my_rds_superuser'] },
])('a server of one’s own is nobody’s: %j', (marks) => {
  expect(recogniseProvider({ ...NONE, ...marks })).toBeNull();
});

test('docs/doctor.md explains every check', () => {
  const text = readFileSync(new URL('../../docs/doctor.md', import.meta.url), 'utf8');
  expect(Object.keys(CHECKS).filter((check) => !text.includes(`\`${check}\``))).toEqual([]);
});
