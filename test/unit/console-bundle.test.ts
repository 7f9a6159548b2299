import { beforeAll, describe, expect, it, vi } from 'vitest';
import { bundle } from '../../local/console/bundle.ts';
import { type Asset, toAssets } from '../../local/console/pages.ts';

vi.setConfig({ hookTimeout: 60_000 }); // a second, on a machine that does nothing else

let assets: ReadonlyMap<string, Asset>;

beforeAll(async () => {
  assets = toAssets((await bundle()).files);
});

const named = (pattern: RegExp): string => [...assets.keys()].find((name) => pattern.test(name)) ?? '';
const bytes = (name: string): number => assets.get(name)?.body.length ?? 0;
const text = (name: string): string => Buffer.from(assets.get(name)?.body ?? '').toString();

describe('the bundles of the console', () => {
  it('are small: what a page needs for its first paint, and what it loads with the first graph or text', () => {
    expect(bytes('app.js')).toBeGreaterThan(10_000);
    expect(bytes('app.js') + bytes('app.css') + bytes('index.html')).toBeLessThan(60_000);
    expect(bytes(named(/^chart-/))).toBeGreaterThan(100_000);
    expect(bytes(named(/^chart-/))).toBeLessThan(600_000);
    expect(bytes(named(/^render-markdown-/))).toBeLessThan(70_000);
  });

  it('ask nothing of elsewhere, and have no inline script or style, which the policy forbids', () => {
    const shell = text('index.html');
    const references = [...shell.matchAll(/(?:href|src)="([^"]*)"/g)].map(([, reference = '']) => reference);
    expect(references.map((reference) => assets.has(reference.slice(1)))).toEqual([true, true, true]);
    expect(shell).not.toMatch(/<script(?![^>]* src=)|<style|style=|\son\w+=/);
    expect(text('app.css')).not.toMatch(/url\(|@import/);
  });
});
