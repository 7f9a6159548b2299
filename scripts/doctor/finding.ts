/** What the doctor found about one link of the way. */
export interface Finding {
  /** `bad`: a user who falls out now would not be told. `note`: worth knowing. */
  readonly mark: 'ok' | 'note' | 'bad';
  /** One line: the link, what was found and, unless all is well, what to do. */
  readonly text: string;
}

/** Findings, as soon as each is known. */
export type Findings = AsyncGenerator<Finding, void, void>;

export const ok = (text: string): Finding => ({ mark: 'ok', text });
export const note = (text: string): Finding => ({ mark: 'note', text });
export const bad = (text: string): Finding => ({ mark: 'bad', text });
