import { useEffect, useState } from 'preact/hooks';

const TIMEOUT_MS = 10_000;

export interface Live<Data> {
  /** The last answer. It stays while the next one is awaited or fails. */
  readonly data: Data | undefined;
  /** The last request failed. */
  readonly isLost: boolean;
}

/** Asks the console's API. @throws if it does not answer within ten seconds, or answers with an error */
export async function ask<Data>(path: string, signal: AbortSignal): Promise<Data> {
  const response = await fetch(`/api/${path}`, { signal: AbortSignal.any([signal, AbortSignal.timeout(TIMEOUT_MS)]) });
  if (!response.ok) throw new Error(await response.text());
  return (await response.json()) as Data;
}

/** The API's answer, renewed every few seconds while the page is visible. A path of `undefined` asks nothing. */
export function useLive<Data>(path: string | undefined, everyMs = 2000): Live<Data> {
  const [live, setLive] = useState<Live<Data> & { readonly path?: string | undefined }>({
    data: undefined,
    isLost: false,
  });
  useEffect(() => {
    if (path === undefined) return;
    const ended = new AbortController();
    let timer: ReturnType<typeof setTimeout> | undefined;
    const renew = async (): Promise<void> => {
      clearTimeout(timer);
      if (document.hidden) return; // the event below renews it
      try {
        const data = await ask<Data>(path, ended.signal);
        setLive({ data, isLost: false, path });
      } catch {
        if (ended.signal.aborted) return;
        setLive((last) => ({ ...last, isLost: true }));
      }
      timer = setTimeout(() => void renew(), everyMs);
    };
    const onVisible = (): void => void renew();
    document.addEventListener('visibilitychange', onVisible);
    void renew();
    return () => {
      ended.abort();
      clearTimeout(timer);
      document.removeEventListener('visibilitychange', onVisible);
    };
  }, [path, everyMs]);
  return live.path === path ? live : { data: undefined, isLost: live.isLost };
}

const listeners = new Set<(now: number) => void>();
setInterval(() => {
  const now = Date.now();
  for (const listener of listeners) listener(now);
}, 1000);

/** The time, by the second. */
export function useNow(): number {
  const [now, setNow] = useState(Date.now);
  useEffect(() => {
    listeners.add(setNow);
    return () => void listeners.delete(setNow);
  }, []);
  return now;
}
