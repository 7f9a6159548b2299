/**
 * Variables for a process whose clock differs. Debian's package faketime; the library's path is relative to that of the
 * system's libraries.
 */
export const shifted = (seconds: number): NodeJS.ProcessEnv => ({
  LD_PRELOAD: '/usr/$LIB/faketime/libfaketime.so.1',
  FAKETIME: `${seconds < 0 ? '' : '+'}${seconds}`,
  FAKETIME_DONT_FAKE_MONOTONIC: '1',
});

/** Takes these variables back. */
export const NOT_SHIFTED = { LD_PRELOAD: undefined, FAKETIME: undefined, FAKETIME_DONT_FAKE_MONOTONIC: undefined };
