#!/usr/bin/env node
// Entry of the `ibex` command: the program, which `npm ci` builds (script `prepare`).
import '../dist/cli/main.js';
