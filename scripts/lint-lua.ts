import { spawnSync } from 'node:child_process';
import { ensurePackage } from './debian.ts';

/** Lints the Lua modules with luacheck. */
ensurePackage('luacheck', 'lua-check');
const { status } = spawnSync('luacheck', ['--quiet', 'prosody', 'bench'], { stdio: 'inherit' });
process.exitCode = status ?? 1;
