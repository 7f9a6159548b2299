import * as echarts from 'echarts';
import { type Growth, exponent } from './measure.ts';

const [WIDTH, HEIGHT, LEGEND_LINE] = [860, 460, 24];

/** How a quantity grows, in words: an exponent of 1 is linear. */
export function slope(points: Growth['lines'][number]['points']): string {
  if (points.every(([, y]) => y === 0)) return 'costs nothing';
  const power = exponent(points);
  if (power === undefined) return 'one point';
  const kind =
    power < 0.15 ? 'constant' : power < 0.85 ? 'less than linear' : power <= 1.15 ? 'linear' : 'more than linear';
  return `${kind}, slope ${power.toFixed(2)}`;
}

/** A picture of growth, both axes logarithmic, so that a straight line's slope is the exponent. Returns SVG. */
export function picture({ title, x, y, lines }: Growth): string {
  const chart = echarts.init(null, null, {
    renderer: 'svg',
    ssr: true,
    width: WIDTH,
    height: HEIGHT + lines.length * LEGEND_LINE,
  });
  chart.setOption({
    animation: false,
    backgroundColor: '#ffffff',
    title: { text: title, left: 'center' },
    legend: { orient: 'vertical', bottom: 4, left: 70 },
    grid: { left: 70, right: 40, top: 60, bottom: 60 + lines.length * LEGEND_LINE },
    xAxis: { type: 'log', name: x, nameLocation: 'middle', nameGap: 28, minorSplitLine: { show: true } },
    yAxis: { type: 'log', name: y, minorSplitLine: { show: true } },
    series: lines
      .map(({ name, points }) => ({
        name: `${name} (${slope(points)})`,
        type: 'line',
        symbolSize: 7,
        data: points.filter(([, value]) => value > 0).map((point) => [...point]),
      }))
      .filter(({ data }) => data.length > 0),
  });
  const svg = chart.renderToSVGString();
  chart.dispose();
  return svg;
}
