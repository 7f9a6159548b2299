import type { ComponentChildren, JSX } from 'preact';
import { useEffect, useState } from 'preact/hooks';

/** The address of the page that is shown. */
export function useAddress(): URL {
  const [address, setAddress] = useState(location.href);
  useEffect(() => {
    const read = (): void => setAddress(location.href);
    addEventListener('popstate', read);
    return () => removeEventListener('popstate', read);
  }, []);
  return new URL(address);
}

/** Shows another page without loading the document again. */
export function go(path: string): void {
  history.pushState(null, '', path);
  dispatchEvent(new PopStateEvent('popstate'));
}

/** A link to a page of the console. */
export function Link(props: {
  readonly to: string;
  readonly isCurrent?: boolean;
  readonly class?: string;
  readonly children: ComponentChildren;
}): JSX.Element {
  const onClick = (event: MouseEvent): void => {
    if (event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return; // another tab or window
    event.preventDefault();
    go(props.to);
  };
  return (
    <a href={props.to} class={props.class} aria-current={props.isCurrent ? 'page' : undefined} onClick={onClick}>
      {props.children}
    </a>
  );
}
