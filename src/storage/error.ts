/** An image that cannot be opened or used. `hint` says what to do. */
export class StorageError extends Error {
  override readonly name = 'StorageError';
  readonly hint: string | undefined;

  constructor(message: string, hint?: string, cause?: unknown) {
    super(message, { cause });
    this.hint = hint;
  }
}

/** Somebody has the image who may not share it. */
export class ImageInUse extends StorageError {}
