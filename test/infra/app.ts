import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { App } from 'aws-cdk-lib';
import { afterAll } from 'vitest';

/** Where the apps of a test file write. Without `outdir`, each leaves a folder `cdk.out…` among the temporary files. */
const folder = mkdtempSync(join(tmpdir(), 'ping-muc-infra-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

let last = 0;
/** A new folder for one app, which is removed after the tests of this file. */
export const outdir = (): string => join(folder, String((last += 1)));

/** A CDK app that does not bundle the functions. */
export const newApp = (): App => new App({ context: { 'aws:cdk:bundling-stacks': [] }, outdir: outdir() });
