declare module 'asl-validator' {
  /** Beware: it writes into the definition. */
  export default function validate(definition: object): { isValid: boolean; errors: object[] };
}
