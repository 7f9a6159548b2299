import type { JSX } from 'preact';
import { useEffect, useRef } from 'preact/hooks';
import type { GraphLine } from '../../cloudwatch/views.ts';
import { number } from './format.ts';

export interface GraphProps {
  readonly title: string;
  readonly lines: readonly GraphLine[];
  readonly isStacked?: boolean;
  readonly threshold?: number | undefined;
  /** The range of time, in milliseconds. Undefined: as the points have it. */
  readonly from?: number;
  readonly to?: number;
}

/** Colours of lines, which app.css defines: --line-0 and so on. */
const LINE_COLOURS = 8;
const colour = (line: number): string => `line-${line % LINE_COLOURS}`;

/** A graph, and below it each line with its last value, which is what a screen reader reads. */
export function Graph(props: GraphProps): JSX.Element {
  const canvas = useRef<HTMLDivElement>(null);
  const latest = useRef(props);
  latest.current = props;
  const redraw = useRef<() => void>(undefined);
  useEffect(() => {
    const element = canvas.current;
    if (element === null) return;
    let isGone = false;
    let end = (): void => {
      isGone = true;
    };
    // the charting library is loaded with the first graph
    void import('./chart.ts').then(({ startChart }) => {
      if (isGone) return;
      const chart = startChart(element, { number, colour });
      redraw.current = () => chart.draw(latest.current);
      redraw.current();
      end = () => chart.end();
    });
    return () => end();
  }, []);
  useEffect(() => redraw.current?.());
  const hasData = props.lines.some(({ points }) => points.length > 0);
  return (
    <figure class="graph">
      <figcaption>{props.title}</figcaption>
      <div class="canvas" ref={canvas} aria-hidden="true" />
      {!hasData && <p class="nothing">No data in this time</p>}
      <ul class="legend">
        {props.lines.map(({ label, points }, index) => (
          <li key={`${index} ${label}`}>
            <span class={`swatch ${colour(index)}`} aria-hidden="true" />
            {label} <b>{points.length === 0 ? '–' : number(points.at(-1)?.value ?? 0)}</b>
          </li>
        ))}
      </ul>
    </figure>
  );
}
