/**
 * A fault of the host, a file or a request (never of the guest), told in words for people.
 *
 * `message` says what failed, with the values; `hint` says what to do about it.
 */
export class NemuError extends Error {
  override readonly name = 'NemuError';
  /** Stable name for programs, for example `KERNEL_FORMAT` or `MEMORY_LIMIT`. */
  readonly code: string;
  readonly hint: string | undefined;

  constructor(code: string, message: string, options: { hint?: string; cause?: unknown } = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
    this.hint = options.hint;
  }

  /** Message and hint as one paragraph for a terminal. */
  get text(): string {
    return this.hint ? `${this.message}\n${this.hint}` : this.message;
  }

  /** As what util.inspect shows it, also within something else: people have no use for the program's own stack. */
  [Symbol.for('nodejs.util.inspect.custom')](): string {
    return this.text;
  }

  toJSON(): { code: string; message: string; hint?: string } {
    return { code: this.code, message: this.message, ...(this.hint && { hint: this.hint }) };
  }

  static fromJSON(json: { code: string; message: string; hint?: string }): NemuError {
    return new NemuError(json.code, json.message, json.hint === undefined ? {} : { hint: json.hint });
  }
}
