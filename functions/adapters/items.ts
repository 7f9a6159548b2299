import { type AttributeValue, ConditionalCheckFailedException } from '@aws-sdk/client-dynamodb';

/** What the classes that read and write the one table have in common. */

/** DynamoDB's reason to refuse a row is cut to so many characters: it may cite the row. */
const MAX_REASON = 200;

/**
 * DynamoDB will never accept this row, for example because its key is too long. The message is safe to show to the
 * sender: it is only about what the sender sent.
 */
export class RowRefusedError extends Error {
  override readonly name = 'RowRefusedError';
}

export const text = (value: string): AttributeValue => ({ S: value });
export const number = (value: number): AttributeValue => ({ N: String(value) });

/** Whether the condition of a write held. @throws RowRefusedError, or what the SDK throws */
export async function holds(write: Promise<unknown>): Promise<boolean> {
  try {
    await write;
    return true;
  } catch (error) {
    if (error instanceof ConditionalCheckFailedException) return false;
    if (error instanceof Error && error.name === 'ValidationException') {
      throw new RowRefusedError(error.message.slice(0, MAX_REASON), { cause: error });
    }
    throw error;
  }
}
