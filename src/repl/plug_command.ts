/** The short form `plug TYPE KEY=VALUE…`: names, options and values come from the schema of what can be plugged. */
import { NemuError } from '../client/errors.ts';
import { pluggable } from '../client/live.ts';
import { parseSize } from '../client/sizes.ts';
import { didYouMean } from '../client/suggest.ts';
import {
  dashed,
  findPluggable,
  isNumber,
  nameOf,
  type Options,
  optionsOf,
  type Property,
  plugTypes,
} from './plug_options.ts';
import type { Vm } from './vm.ts';

const quote = (text: string) => `'${text.replaceAll('\\', '\\\\').replaceAll("'", "\\'")}'`;

function literal(option: string, text: string, property: Property): string {
  if (property.type === 'boolean') {
    if (['on', 'yes', 'true'].includes(text)) return 'true';
    if (['off', 'no', 'false'].includes(text)) return 'false';
    throw new NemuError('USAGE', `${option}=${text} is neither on nor off.`);
  }
  if (!isNumber(property)) return quote(text);
  // Of bytes in a second people write sizes; of requests they do not.
  if (/^bps/.test(option) && /^\d+(\.\d+)?[KMGT]/i.test(text)) return String(parseSize(text));
  if (!/^(0x[0-9a-f]+|\d+)$/i.test(text)) throw new NemuError('USAGE', `${option}=${text} is not a whole number.`);
  return text;
}

/**
 * `key=value` as fields of an object; `key` alone turns something on.
 * @param command that they are of, for what is wrong. @throws NemuError USAGE
 */
export function fieldsCode(command: string, what: Options, rest: readonly string[]): string[] {
  const options = optionsOf(what);
  const seen = new Set<string>();
  return rest.map((item) => {
    const equals = item.indexOf('=');
    const [name, text] = equals < 0 ? [item, 'on'] : [item.slice(0, equals), item.slice(equals + 1)];
    const option = options.get(dashed(name));
    if (!option) {
      const near = didYouMean(name, [...options.keys()]);
      throw new NemuError('USAGE', `${command}: there is no "${name}".`, {
        hint: near ? `Did you mean ${near}=?` : `It takes ${[...options.keys()].join('=, ')}=.`,
      });
    }
    if (seen.has(option.field)) throw new NemuError('USAGE', `${command}: ${name}= is given twice.`);
    seen.add(option.field);
    return `${option.field}: ${literal(name, text, option.property)}`;
  });
}

/** @throws NemuError USAGE */
export function plugCode(word: string, rest: readonly string[]): string {
  const what = findPluggable(word);
  if (!what) {
    const near = didYouMean(word, plugTypes());
    throw new NemuError('USAGE', `There is no "${word}" to plug.`, {
      hint: near ? `Did you mean ${near}?` : `There are ${pluggable.map(nameOf).join(', ')}.`,
    });
  }
  const fields = fieldsCode(`plug ${word}`, what, rest);
  if (what.type) {
    return `await vm.pci.plug(${quote(what.type)}${fields.length > 0 ? `, { ${fields.join(', ')} }` : ''})`;
  }
  return `await vm.plug({ ${[`kind: ${quote(what.kind)}`, ...fields].join(', ')} })`;
}

/** What may stand behind these words. */
export function plugWords([type, ...given]: readonly string[]): string[] {
  if (type === undefined) return plugTypes();
  const what = findPluggable(type);
  return what ? optionWords(what, given) : [];
}

/** Options that may follow those that are there. */
export function optionWords(what: Options, given: readonly string[]): string[] {
  const used = given.map((item) => item.split('=')[0]);
  return [...optionsOf(what)]
    .filter(([name]) => !used.includes(name))
    .flatMap(([name, { property }]) => {
      const values = property.type === 'boolean' ? ['on', 'off'] : property.enum;
      return values ? values.map((value) => `${name}=${value}`) : [`${name}=`];
    });
}

/** Ids of what can be taken out. */
export function unpluggable({ plugged }: Vm): string[] {
  if (!plugged) return [];
  const { cpus, memory, nvdimms, pci } = plugged;
  return [...cpus.present.slice(1), ...memory.dimms, ...nvdimms, ...pci.devices].map(({ id }) => id);
}
