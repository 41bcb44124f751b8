/**
 * JSON as QMP peers write it: values that follow each other in a byte stream with or without space between, strings in
 * either kind of quote, whole numbers up to 64 bits (docs/interop/qmp-spec in QEMU's documentation, RFC 8259).
 */

export type Json = null | boolean | number | bigint | JsonFloat | string | readonly Json[] | JsonObject;
export interface JsonObject {
  readonly [key: string]: Json;
}

/** A number with a fraction or an exponent, or one of more than 64 bits: none where a whole number is wanted, 1.0 neither. */
export class JsonFloat {
  readonly value: number;

  constructor(value: number) {
    this.value = value;
  }

  toJSON(): number {
    return this.value;
  }
}

export const isObject = (value: unknown): value is JsonObject =>
  typeof value === 'object' && value !== null && !Array.isArray(value) && !(value instanceof JsonFloat);

type TokenType = 'punctuation' | 'string' | 'number' | 'keyword';
interface Token {
  readonly type: TokenType;
  /** As it was written, bytes as Latin-1 characters. */
  readonly text: string;
}

export interface JsonLimits {
  /** Bytes of one value. */
  readonly bytes: number;
  readonly tokens: number;
  readonly nesting: number;
}

export const LIMITS: JsonLimits = { bytes: 4 << 20, tokens: 200_000, nesting: 1024 };

/** A stray byte or a value that is none. What follows it is read again. */
export class JsonError extends Error {}
/** A value that is larger than the limits. The stream cannot be followed any further. */
export class JsonLimitError extends JsonError {}

type State = 'start' | 'string' | 'escape' | 'number' | 'keyword' | 'recovery' | 'over';

const PUNCTUATION = '{}[]:,';
const SPACE = ' \t\r\n';
const NUMBER = /^-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?$/;
/** What may become one; a zero before other digits may not. */
const BEGUN_NUMBER = /^-?((0|[1-9][0-9]*)(\.[0-9]*|(\.[0-9]+)?[eE][-+]?[0-9]*)?)?$/;
/** Of a stray token, in an error. */
const SHOWN = 64;

/** Cuts a stream of bytes into values. */
export class JsonStream {
  readonly #limits: JsonLimits;
  #state: State = 'start';
  #quote = '';
  #text = '';
  #tokens: Token[] = [];
  #bytes = 0;
  /** Of each kind, those that are open: negative where one more was closed. */
  #braces = 0;
  #brackets = 0;
  #found: (Json | JsonError)[] = [];

  constructor(limits: JsonLimits = LIMITS) {
    this.#limits = limits;
  }

  /** @returns what the bytes complete, values and errors in order; after a `JsonLimitError` nothing more comes. */
  push(bytes: Uint8Array): (Json | JsonError)[] {
    this.#found = [];
    const text = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('latin1');
    for (let at = 0; at < text.length && this.#state !== 'over'; ) {
      const run = this.#state === 'string' ? this.#plain(text, at) : 0;
      const count = Math.max(1, run);
      this.#bytes += count;
      if (this.#bytes > this.#limits.bytes) this.#over('JSON token size limit exceeded');
      else if (run > 0) this.#text += text.slice(at, at + run);
      else this.#take(text[at]);
      at += count;
    }
    const found = this.#found;
    this.#found = [];
    return found;
  }

  /** How many characters from here on are the string's, as they are: a long one goes in pieces, not by its bytes. */
  #plain(text: string, from: number): number {
    let at = from;
    while (at < text.length) {
      const character = text[at];
      if (character < ' ' || character > '\xfd' || character === '\\' || character === this.#quote) break;
      at++;
    }
    return at - from;
  }

  #take(character: string): void {
    switch (this.#state) {
      case 'over':
        return;
      case 'string':
        this.#text += character;
        if (character < ' ' || character > '\xfd') this.#stray();
        else if (character === '\\') this.#state = 'escape';
        else if (character === this.#quote) this.#token('string');
        return;
      case 'escape':
        this.#text += character;
        if (character < ' ' || character > '\xfd') this.#stray();
        else this.#state = 'string';
        return;
      case 'number': {
        const more = this.#text + character;
        if (NUMBER.test(this.#text) && !BEGUN_NUMBER.test(more) && !/[0-9]/.test(character)) {
          this.#token('number');
          break;
        }
        // The byte that makes it none is a part of what is told.
        this.#text = more;
        if (!BEGUN_NUMBER.test(more)) this.#stray();
        return;
      }
      case 'keyword':
        if (character >= 'a' && character <= 'z') {
          this.#text += character;
          return;
        }
        this.#token('keyword');
        break;
      case 'recovery':
        if (!PUNCTUATION.includes(character) && character >= ' ' && character <= '\xfd') return;
        this.#state = 'start';
        break;
      case 'start':
        break;
    }
    // What ends one token may begin the next.
    if ((this.#state as State) !== 'over') this.#begin(character);
  }

  #begin(character: string): void {
    if (SPACE.includes(character)) {
      if (this.#tokens.length === 0) this.#bytes = 0;
      return;
    }
    this.#text = character;
    if (PUNCTUATION.includes(character)) this.#token('punctuation');
    else if (character === '"' || character === "'") {
      this.#quote = character;
      this.#state = 'string';
    } else if (character === '-' || (character >= '0' && character <= '9')) this.#state = 'number';
    else if (character >= 'a' && character <= 'z') this.#state = 'keyword';
    else this.#stray();
  }

  #stray(): void {
    const shown = printable(this.#text.slice(0, SHOWN));
    this.#drop(new JsonError(`JSON parse error, stray '${shown}'`));
    this.#state = 'recovery';
  }

  #over(message: string): void {
    this.#drop(new JsonLimitError(message));
    this.#state = 'over';
  }

  #drop(error: JsonError): void {
    this.#reset();
    this.#found.push(error);
  }

  #reset(): void {
    this.#tokens = [];
    this.#text = '';
    this.#braces = 0;
    this.#brackets = 0;
    this.#bytes = 0;
  }

  #token(type: TokenType): void {
    const text = this.#text;
    this.#state = 'start';
    this.#text = '';
    this.#tokens.push({ type, text });
    if (this.#tokens.length > this.#limits.tokens) {
      this.#over('JSON token count limit exceeded');
      return;
    }
    if (type === 'punctuation') {
      if (text === '{') this.#braces++;
      else if (text === '}') this.#braces--;
      else if (text === '[') this.#brackets++;
      else if (text === ']') this.#brackets--;
    }
    const [least, open] = [Math.min(this.#braces, this.#brackets), this.#braces + this.#brackets];
    if (open > this.#limits.nesting) this.#over('JSON nesting depth limit exceeded');
    else if (least < 0 || open === 0) this.#complete();
  }

  #complete(): void {
    const tokens = this.#tokens;
    this.#reset();
    try {
      this.#found.push(new TokenParser(tokens).parse());
    } catch (error) {
      if (!(error instanceof JsonError)) throw error;
      this.#found.push(error);
    }
  }
}

const printable = (latin1: string) => Buffer.from(latin1, 'latin1').toString('utf8');

const fail = (what: string): never => {
  throw new JsonError(`JSON parse error, ${what}`);
};

const ESCAPES: Readonly<Record<string, string>> = {
  ...{ '"': '"', "'": "'", '\\': '\\', '/': '/', b: '\b', f: '\f', n: '\n', r: '\r', t: '\t' },
};
const KEYWORDS: Readonly<Record<string, Json>> = { true: true, false: false, null: null };
const UTF8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/** One value from its tokens; they nest no deeper than the limit. */
class TokenParser {
  readonly #tokens: readonly Token[];
  #at = 0;

  constructor(tokens: readonly Token[]) {
    this.#tokens = tokens;
  }

  parse(): Json {
    const value = this.#value();
    if (this.#at < this.#tokens.length) fail('objects, arrays and values must be separated');
    return value;
  }

  #next(): Token {
    return this.#tokens[this.#at++] ?? fail('premature EOI');
  }

  #peek(): string | undefined {
    const token = this.#tokens[this.#at];
    return token?.type === 'punctuation' ? token.text : undefined;
  }

  #value(): Json {
    const { type, text } = this.#next();
    if (type === 'string') return unquote(text);
    if (type === 'number') return numberOf(text);
    if (type === 'keyword') {
      return Object.hasOwn(KEYWORDS, text) ? KEYWORDS[text] : fail(`invalid keyword '${text.slice(0, SHOWN)}'`);
    }
    if (text === '{') return this.#object();
    if (text === '[') return this.#array();
    return fail('expecting value');
  }

  #object(): JsonObject {
    // A key may be called __proto__.
    const object = Object.create(null) as Record<string, Json>;
    if (this.#peek() === '}') {
      this.#at++;
      return object;
    }
    for (;;) {
      const key = this.#value();
      if (typeof key !== 'string') return fail('key is not a string in object');
      if (this.#next().text !== ':') return fail('missing : in object pair');
      const value = this.#value();
      if (key in object) return fail('duplicate key');
      object[key] = value;
      const { text } = this.#next();
      if (text === '}') return object;
      if (text !== ',') return fail('expected separator in dict');
    }
  }

  #array(): Json[] {
    const array: Json[] = [];
    if (this.#peek() === ']') {
      this.#at++;
      return array;
    }
    for (;;) {
      array.push(this.#value());
      const { text } = this.#next();
      if (text === ']') return array;
      if (text !== ',') return fail('expected separator in list');
    }
  }
}

function unquote(text: string): string {
  const inner = text.slice(1, -1);
  let bytes = '';
  let out = '';
  // Bytes between escapes are UTF-8; what an escape stands for is a character.
  const flush = () => {
    if (bytes === '') return;
    try {
      // A zero is written in two bytes.
      for (const [index, part] of bytes.split('\xc0\x80').entries()) {
        out += `${index === 0 ? '' : '\0'}${UTF8.decode(Buffer.from(part, 'latin1'))}`;
      }
    } catch {
      fail('invalid UTF-8 sequence in string');
    }
    if (NONCHARACTER.test(out)) fail('invalid UTF-8 sequence in string');
    bytes = '';
  };
  for (let at = 0; at < inner.length; at++) {
    if (inner[at] !== '\\') {
      bytes += inner[at];
      continue;
    }
    flush();
    const code = inner[++at];
    if (code === 'u') {
      const [read, character] = unicodeEscape(inner, at - 1);
      out += character;
      at += read.length - 2;
    } else out += ESCAPES[code] ?? fail('invalid escape sequence in string');
  }
  flush();
  return out;
}

/** Code points that stand for nothing, for good (Unicode, section 23.7), which QEMU takes for an error. */
const NONCHARACTER = /\p{Noncharacter_Code_Point}/u;

/** A character, or two that make one, at the backslash. @returns what was read, and what it stands for. */
function unicodeEscape(text: string, at: number): [read: string, character: string] {
  const [read] = /^\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|^\\u[0-9a-fA-F]{4}/.exec(
    text.slice(at, at + 12),
  ) ?? [text.slice(at, at + 6)];
  const digits = /^(?:\\u([0-9a-fA-F]{4}))(?:\\u([0-9a-fA-F]{4}))?$/.exec(read)?.slice(1) ?? [];
  const character = String.fromCharCode(...digits.filter(Boolean).map((each) => Number.parseInt(each, 16)));
  if (character !== '' && character.isWellFormed() && !NONCHARACTER.test(character)) return [read, character];
  return fail(`${printable(read)} is not a valid Unicode character`);
}

const INT64_MIN = -(2n ** 63n);
const UINT64_MAX = 2n ** 64n - 1n;

/** A whole number as far as 64 bits go, exactly; everything else as a floating-point number. */
function numberOf(text: string): number | bigint | JsonFloat {
  const number = Number(text);
  if (!/^-?\d+$/.test(text)) return new JsonFloat(number);
  if (Number.isSafeInteger(number)) return Object.is(number, -0) ? 0 : number;
  const exact = text.length > 20 ? undefined : BigInt(text);
  return exact !== undefined && exact >= INT64_MIN && exact <= UINT64_MAX ? exact : new JsonFloat(number);
}

/** JSON in ASCII, as QEMU writes it; members that are undefined are left out. */
export function encode(value: unknown): string {
  if (typeof value === 'bigint') return String(value);
  if (value instanceof JsonFloat) return encode(value.value);
  if (typeof value === 'string') return encodeString(value);
  // JSON has no infinity, and a peer may send 1e999 as its id.
  if (typeof value === 'number') return Number.isFinite(value) ? String(value) : value > 0 ? '1e999' : '-1e999';
  if (Array.isArray(value)) return `[${value.map(encode).join(', ')}]`;
  if (typeof value === 'object' && value !== null) {
    const members = Object.entries(value).filter(([, member]) => member !== undefined);
    return `{${members.map(([key, member]) => `${encodeString(key)}: ${encode(member)}`).join(', ')}}`;
  }
  return value === undefined ? 'null' : String(value);
}

const encodeString = (text: string) =>
  JSON.stringify(text).replace(/[\u007f-\uffff]/g, (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`);
