import { LineChart } from 'echarts/charts';
import { GridComponent, MarkLineComponent, TooltipComponent } from 'echarts/components';
import { init, use } from 'echarts/core';
import { CanvasRenderer } from 'echarts/renderers';
import type { GraphProps } from './graph.tsx';

use([LineChart, GridComponent, MarkLineComponent, TooltipComponent, CanvasRenderer]);

/** Lines with fewer points show each of them. */
const FEW_POINTS = 60;

/** How graphs look. It is passed in so that this part and the page share no code, which would be a third file. */
export interface Look {
  readonly number: (value: number) => string;
  /** The name of a line's colour in app.css. */
  readonly colour: (line: number) => string;
}

export interface Chart {
  draw(graph: GraphProps): void;
  end(): void;
}

/** Draws graphs into an element, in the colours of app.css, and again if the scheme or the size changes. */
export function startChart(element: HTMLElement, look: Look): Chart {
  const chart = init(element, null, { renderer: 'canvas' });
  let last: GraphProps | undefined;
  const draw = (graph: GraphProps): void => {
    last = graph;
    chart.setOption(option(graph, look, getComputedStyle(element)), { notMerge: true });
  };
  const again = (): void => {
    if (last !== undefined) draw(last);
  };
  const scheme = matchMedia('(prefers-color-scheme: dark)');
  scheme.addEventListener('change', again);
  const size = new ResizeObserver(() => chart.resize());
  size.observe(element);
  return {
    draw,
    end() {
      scheme.removeEventListener('change', again);
      size.disconnect();
      chart.dispose();
    },
  };
}

function option(graph: GraphProps, look: Look, style: CSSStyleDeclaration): Record<string, unknown> {
  const { lines, isStacked, threshold, from, to } = graph;
  const colour = (name: string): string => style.getPropertyValue(`--${name}`).trim();
  const [quiet, border, bad] = [colour('quiet'), colour('border'), colour('bad')];
  const hasRight = lines.some(({ axis }) => axis === 'right');
  const value = { type: 'value', min: 0, axisLabel: { color: quiet }, splitLine: { lineStyle: { color: border } } };
  const markLine = {
    silent: true,
    symbol: 'none',
    data: [{ yAxis: threshold }],
    lineStyle: { color: bad, type: 'dashed' },
    label: { formatter: `threshold ${look.number(threshold ?? 0)}`, position: 'insideEndTop', color: bad },
  };
  return {
    animation: false,
    grid: { left: 8, right: hasRight ? 8 : 16, top: 16, bottom: 4, containLabel: true },
    // an HTML tooltip would need inline styles, which the page's policy forbids
    tooltip: { trigger: 'axis', renderMode: 'richText', confine: true, valueFormatter: look.number },
    xAxis: {
      type: 'time',
      ...(from === undefined ? {} : { min: from }),
      ...(to === undefined ? {} : { max: to }),
      axisLabel: { color: quiet, hideOverlap: true },
      axisLine: { lineStyle: { color: border } },
    },
    yAxis: hasRight ? [value, { ...value, splitLine: { show: false } }] : value,
    series: lines.map(({ label, axis, points }, index) => ({
      type: 'line',
      name: label,
      yAxisIndex: axis === 'right' ? 1 : 0,
      data: points.map(({ at, value: y }) => [at, y]),
      showSymbol: points.length < FEW_POINTS,
      symbolSize: 5,
      lineStyle: { width: 2 },
      itemStyle: { color: colour(look.colour(index)) },
      ...(isStacked ? { stack: 'all', areaStyle: { opacity: 0.3 } } : {}),
      ...(threshold !== undefined && index === 0 ? { markLine } : {}),
    })),
  };
}
