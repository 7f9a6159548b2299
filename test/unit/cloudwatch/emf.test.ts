import { describe, expect, it } from 'vitest';
import { readMetrics } from '../../../local/cloudwatch/emf.ts';

const line = (fields: object, aws: object = {}): string =>
  JSON.stringify({
    service: 'PingMuc',
    host: 'example.net',
    _aws: {
      Timestamp: 1_800_000_000_000,
      CloudWatchMetrics: [
        { Namespace: 'PingMuc', Dimensions: [['service']], Metrics: [{ Name: 'Notices', Unit: 'Count' }] },
      ],
      ...aws,
    },
    ...fields,
  });
const directive = (more: object): object => ({
  CloudWatchMetrics: [{ Namespace: 'PingMuc', Dimensions: [['service']], Metrics: [{ Name: 'Notices' }], ...more }],
});

describe('the metrics of a log line', () => {
  it('have the namespace, the dimensions and the time stamp of the line', () => {
    expect(readMetrics(line({ Notices: 10 }))).toEqual([
      {
        namespace: 'PingMuc',
        name: 'Notices',
        dimensions: { service: 'PingMuc' },
        at: 1_800_000_000_000,
        values: [10],
      },
    ]);
  });

  it('can have several values', () => {
    expect(readMetrics(line({ Notices: [1, 2, 3] }))).toMatchObject([{ values: [1, 2, 3] }]);
  });

  it('count for each set of dimensions', () => {
    const read = readMetrics(line({ Notices: 1 }, directive({ Dimensions: [['service'], ['service', 'host'], []] })));
    expect(read.map(({ dimensions }) => dimensions)).toEqual([
      { service: 'PingMuc' },
      { service: 'PingMuc', host: 'example.net' },
      {},
    ]);
  });

  it('are none without a directive', () => {
    expect(readMetrics('{"level":"INFO","message":"started","Notices":3}')).toEqual([]);
    expect(readMetrics(line({ Notices: 1 }, { CloudWatchMetrics: [] }))).toEqual([]);
  });

  it.each([
    ['no JSON', 'REPORT "CloudWatchMetrics" {'],
    ['no object', '["CloudWatchMetrics"]'],
    ['a time stamp that is none', line({ Notices: 1 }, { Timestamp: 'now' })],
    ['a value that is no number', line({ Notices: 'ten' })],
    ['a list with something else than numbers', line({ Notices: [1, null] })],
    ['a metric without its value', line({})],
    ['a dimension without its value', line({ Notices: 1 }, directive({ Dimensions: [['room']] }))],
    ['dimensions that are no list', line({ Notices: 1 }, directive({ Dimensions: 'service' }))],
    ['metrics that are no list', line({ Notices: 1 }, directive({ Metrics: null }))],
    ['metrics that are no objects', line({ Notices: 1 }, directive({ Metrics: [null, 1, {}] }))],
    ['no namespace', line({ Notices: 1 }, directive({ Namespace: undefined }))],
    ['directives that are no objects', line({ Notices: 1 }, { CloudWatchMetrics: [null, 'x'] })],
  ])('are none, and do no harm, with %s', (_, malformed) => {
    expect(readMetrics(malformed)).toEqual([]);
  });
});
