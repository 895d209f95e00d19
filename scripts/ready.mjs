/**
 * Makes a fresh clone ready to run, for `npm run demo` and `npm test`: installs what package-lock.json asks
 * for and builds dist/ from src/. Says one line about each thing it does, and nothing if there is nothing to do.
 * Plain Node without dependencies, since it runs before there are any.
 */
import { spawnSync } from 'node:child_process';
import { readdirSync, readFileSync, statSync, utimesSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

process.chdir(join(import.meta.dirname, '..'));

if (!isInstalled()) {
  console.error('ready: installing the packages of package-lock.json');
  // Development packages also where NODE_ENV says production: without the compiler there is nothing to run.
  // No scripts: no package needs its own, and ours (prepare) would build just what is built below.
  npm('ci', '--include=dev', '--ignore-scripts', '--no-audit', '--no-fund');
}

// Left behind by a successful build only: a failed one writes files as well.
const stamp = join('dist', '.built');
const began = new Date();
if (Math.max(newest('src'), modified(join('scripts', 'build.mjs'))) > modified(stamp)) {
  console.error('ready: building dist/ from src/');
  npm('run', 'build', '--silent');
  writeFileSync(stamp, '');
  // What was edited during the build has to be built again.
  utimesSync(stamp, began, began);
}

/**
 * Compares what npm noted in node_modules with what the lock file asks for. Not their dates, which a mere
 * change of branch turns round. Optional packages may be missing: most are for other platforms.
 */
function isInstalled() {
  const wanted = packagesIn('package-lock.json');
  const present = packagesIn(join('node_modules', '.package-lock.json'));
  return Object.entries(wanted).every(
    ([path, { version, optional }]) =>
      path === '' || (path in present ? present[path].version === version : optional === true),
  );
}

function packagesIn(file) {
  try {
    return JSON.parse(readFileSync(file, 'utf8')).packages;
  } catch {
    return {}; // Missing, or cut short by an interrupted install.
  }
}

function modified(path) {
  return statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? 0;
}

/** The latest change below a directory; a deletion shows in the date of the directory it was in. */
function newest(directory) {
  const paths = readdirSync(directory, { recursive: true }).map((path) => join(directory, path));
  return Math.max(modified(directory), ...paths.map(modified));
}

/** Runs npm with all its output on stderr, and ends this program if it fails. */
function npm(...args) {
  const { status, signal, error } = spawnSync('npm', args, { stdio: ['ignore', 2, 'inherit'] });
  if (status === 0) return;
  console.error(
    `ready: \`npm ${args.join(' ')}\` failed: ${error?.message ?? signal ?? `exit code ${status}`}`,
  );
  process.exit(1);
}
