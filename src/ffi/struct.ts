/**
 * C structure layouts, declared once and read through typed accessors.
 *
 * A layout is a table of field names and types in declaration order; offsets follow the System V ABI's
 * natural alignment, which is the same on x86-64 and AArch64 for the kernel's fixed-width types. An
 * `at(offset, type)` field is placed by hand, which is how the kernel's unions are written down.
 */

export type Scalar = 'u8' | 'u16' | 'u32' | 'u64' | 's8' | 's16' | 's32' | 's64';

const SCALAR_SIZE: Record<Scalar, number> = { u8: 1, u16: 2, u32: 4, u64: 8, s8: 1, s16: 2, s32: 4, s64: 8 };

export interface ArrayType<E extends FieldType = FieldType> {
  readonly element: E;
  readonly length: number;
}

export interface PlacedType<T extends FieldType = FieldType> {
  readonly offset: number;
  readonly type: T;
}

export type FieldType = Scalar | ArrayType | Layout | PlacedType;
export type Fields = Record<string, FieldType>;

/** What an accessor gives for a field: numbers up to 32 bits, bigint for 64, nested accessors otherwise. */
export type FieldValue<T> = T extends 'u64' | 's64'
  ? bigint
  : T extends Scalar
    ? number
    : T extends PlacedType<infer P>
      ? FieldValue<P>
      : T extends Layout<infer F>
        ? Accessor<F>
        : T extends ArrayType<infer E>
          ? ArrayAccessor<E>
          : never;

export type Accessor<F extends Fields> = { -readonly [K in keyof F]: FieldValue<F[K]> } & {
  /** Byte offset of the structure in its view. */
  readonly offset_: number;
};

export interface ArrayAccessor<E> {
  readonly length: number;
  get(index: number): FieldValue<E>;
  set(index: number, value: FieldValue<E>): void;
}

export interface Layout<F extends Fields = Fields> {
  readonly name: string;
  /** sizeof, in bytes. */
  readonly size: number;
  readonly align: number;
  /** offsetof for each field, in bytes. */
  readonly offsets: { readonly [K in keyof F]: number };
  readonly fields: F;
  /** Typed access to a structure that starts at `at` in `view`; little endian, as all hosts of ours are. */
  on(view: DataView, at?: number): Accessor<F>;
}

export function array<const E extends FieldType>(element: E, length: number): ArrayType<E> {
  return { element, length };
}

export function at<const T extends FieldType>(offset: number, type: T): PlacedType<T> {
  return { offset, type };
}

function isLayout(type: FieldType): type is Layout {
  return typeof type === 'object' && 'fields' in type;
}

function isPlaced(type: FieldType): type is PlacedType {
  return typeof type === 'object' && 'type' in type;
}

function sizeAlign(type: FieldType): { size: number; align: number } {
  if (typeof type === 'string') return { size: SCALAR_SIZE[type], align: SCALAR_SIZE[type] };
  if (isLayout(type)) return { size: type.size, align: type.align };
  if (isPlaced(type)) return sizeAlign(type.type);
  const element = sizeAlign(type.element);
  return { size: element.size * type.length, align: element.align };
}

const alignUp = (value: number, align: number) => Math.ceil(value / align) * align;

function readField(view: DataView, offset: number, type: FieldType): unknown {
  switch (type) {
    case 'u8':
      return view.getUint8(offset);
    case 'u16':
      return view.getUint16(offset, true);
    case 'u32':
      return view.getUint32(offset, true);
    case 'u64':
      return view.getBigUint64(offset, true);
    case 's8':
      return view.getInt8(offset);
    case 's16':
      return view.getInt16(offset, true);
    case 's32':
      return view.getInt32(offset, true);
    case 's64':
      return view.getBigInt64(offset, true);
  }
  if (isLayout(type)) return type.on(view, offset);
  if (isPlaced(type)) return readField(view, offset, type.type);
  const { element, length } = type;
  const { size } = sizeAlign(element);
  const checked = (index: number) => {
    if (!(index >= 0 && index < length)) throw new RangeError(`Index ${index} is outside an array of ${length}.`);
    return offset + index * size;
  };
  return {
    length,
    get: (index: number) => readField(view, checked(index), element),
    set: (index: number, value: unknown) => writeField(view, checked(index), element, value),
  };
}

function writeField(view: DataView, offset: number, type: FieldType, value: unknown): void {
  switch (type) {
    case 'u8':
      view.setUint8(offset, value as number);
      break;
    case 'u16':
      view.setUint16(offset, value as number, true);
      break;
    case 'u32':
      view.setUint32(offset, value as number, true);
      break;
    case 'u64':
      view.setBigUint64(offset, value as bigint, true);
      break;
    case 's8':
      view.setInt8(offset, value as number);
      break;
    case 's16':
      view.setInt16(offset, value as number, true);
      break;
    case 's32':
      view.setInt32(offset, value as number, true);
      break;
    case 's64':
      view.setBigInt64(offset, value as bigint, true);
      break;
    default:
      if (isPlaced(type)) {
        writeField(view, offset, type.type, value);
        break;
      }
      throw new TypeError('Only scalar fields can be assigned; write into a nested structure field by field.');
  }
}

/**
 * Declares a layout.
 *
 * @param name the C name without `struct`, used by the test that compares with the kernel's headers.
 * @param fields names and types in order.
 * @param size sizeof when it is more than the fields say (a union, or padding for later), in bytes.
 */
export function struct<const F extends Fields>(name: string, fields: F, size?: number): Layout<F> {
  let end = 0;
  let align = 1;
  let cursor = 0;
  const offsets: Record<string, number> = {};
  for (const [field, type] of Object.entries(fields)) {
    const own = sizeAlign(type);
    const offset = isPlaced(type) ? type.offset : alignUp(cursor, own.align);
    offsets[field] = offset;
    align = Math.max(align, own.align);
    cursor = offset + own.size;
    end = Math.max(end, cursor);
  }
  const natural = alignUp(end, align);
  if (size !== undefined && size < end)
    throw new RangeError(`struct ${name}: ${size} bytes given, fields take ${end}.`);

  class StructAccessor {
    readonly view_: DataView;
    readonly offset_: number;
    constructor(view: DataView, base: number) {
      this.view_ = view;
      this.offset_ = base;
    }
  }
  for (const [field, type] of Object.entries(fields)) {
    const offset = offsets[field];
    Object.defineProperty(StructAccessor.prototype, field, {
      enumerable: true,
      get(this: StructAccessor) {
        return readField(this.view_, this.offset_ + offset, type);
      },
      set(this: StructAccessor, value: unknown) {
        writeField(this.view_, this.offset_ + offset, type, value);
      },
    });
  }

  return {
    name,
    size: size ?? natural,
    align,
    offsets: offsets as { readonly [K in keyof F]: number },
    fields,
    on: (view, base = 0) => new StructAccessor(view, base) as unknown as Accessor<F>,
  };
}
