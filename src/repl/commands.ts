/** The short form: `info pci`, `sh lscpu`. Each is a line of code, which is shown. */
import { netBackendSchema, netThrottleSchema, throttleSchema } from '../client/description.ts';
import { NemuError } from '../client/errors.ts';
import { didYouMean } from '../client/suggest.ts';
import { splitWords } from '../client/words.ts';
import { INFO } from './info.ts';
import { fieldsCode, optionWords, plugCode, plugWords, unpluggable } from './plug_command.ts';
import { findPluggable, type Options, plugHelp, plugTypes } from './plug_options.ts';
import { twoColumns } from './prose.ts';
import type { Vm } from './vm.ts';

export interface ReplCommand {
  readonly usage: string;
  readonly help: string;
  /** What may stand behind the name, where there is more than the usage has. */
  readonly forms?: readonly string[];
  /** What is behind the name is not for us: quotes in it are what they are. */
  readonly verbatim?: boolean;
  /** The code that a line stands for. @param words behind the command, @param rest the same as they were typed. */
  code(words: readonly string[], rest: string): string;
  /** What may stand as the first word. */
  readonly words?: readonly string[];
  /** What may stand behind these words. */
  readonly next?: (words: readonly string[], vm: Vm) => readonly string[];
}

const quote = (text: string) => `'${text.replaceAll('\\', '\\\\').replaceAll("'", "\\'")}'`;
/** A number as it is, in all its digits, anything else as a string. */
const value = (word: string) => {
  if (!/^(0x[0-9a-f]+|\d+)n?$/i.test(word)) return quote(word);
  return word.endsWith('n') || BigInt(word) <= Number.MAX_SAFE_INTEGER ? word : `${word}n`;
};

function needed(words: readonly string[], usage: string): string {
  if (words.length === 0) throw new NemuError('USAGE', `Something is missing: ${usage}`);
  return words[0];
}

/** Limits are all set at once: those that are not given are none, and `off` is none at all. */
const LIMITS = { disk: { schema: throttleSchema }, net: { schema: netThrottleSchema } } as const;
const BACKEND = { schema: netBackendSchema };

/** @throws NemuError USAGE */
function limitsCode(which: keyof typeof LIMITS, options: readonly string[]): string {
  const usage = `${which} NAME throttle`;
  if (options.length === 0) throw new NemuError('USAGE', `Something is missing: ${usage} KEY=VALUE…, or off.`);
  if (options.length === 1 && options[0] === 'off') return '{}';
  return `{ ${fieldsCode(usage, LIMITS[which], options).join(', ')} }`;
}

/** A word that is a count of something. @throws NemuError USAGE for one that is none. */
function count(word: string, usage: string): number {
  if (/^(0x[0-9a-f]+|\d+)$/i.test(word)) return Number(word);
  throw new NemuError('USAGE', `"${word}" is not a whole number: ${usage}`);
}

/** A path may have spaces, with or without quotes around it. */
const pathOf = (words: readonly string[], rest: string): string => (words.length === 1 ? words[0] : rest);

const plain = (usage: string, help: string, code: string): ReplCommand => ({ usage, help, code: () => code });

export const COMMANDS: Readonly<Record<string, ReplCommand>> = {
  status: plain('status', 'what the machine is doing', 'await vm.info()'),
  info: {
    usage: 'info TOPIC [NAME]',
    help: `tables: ${Object.keys(INFO).join(', ')}`,
    words: Object.keys(INFO),
    code: (words) => `await vm.info(${words.slice(0, 2).map(quote).join(', ')})`,
  },
  pause: plain('pause', 'stop every vCPU', 'await vm.pause()'),
  resume: plain('resume', 'let them go on', 'await vm.resume()'),
  reset: plain('reset', 'hard reset', 'await vm.reset()'),
  power: plain('power', 'press the ACPI power button', 'await vm.powerButton()'),
  nmi: plain('nmi', 'send an NMI to every vCPU', 'await vm.nmi()'),
  quit: plain('quit', 'end the machine at once', 'await vm.quit()'),
  sh: {
    usage: 'sh COMMAND…',
    help: 'run a command in the guest',
    verbatim: true,
    code: (words, rest) => {
      needed(words, 'sh COMMAND…');
      return `await vm.sh(${quote(rest)})`;
    },
  },
  dmesg: {
    usage: 'dmesg [LINES]',
    help: "the kernel's log, from its memory",
    code: ([lines]) => `await vm.dmesg(${lines === undefined ? '' : count(lines, 'dmesg [LINES]')})`,
  },
  sym: {
    usage: 'sym NAME|ADDRESS',
    help: "a symbol's address, or the symbol at an address",
    code: (words) => `await vm.symbol(${value(needed(words, 'sym NAME|ADDRESS'))})`,
  },
  x: {
    usage: 'x SYMBOL|ADDRESS [BYTES]',
    help: 'kernel-virtual memory',
    code: (words) =>
      `await vm.read(${value(needed(words, 'x SYMBOL|ADDRESS [BYTES]'))}, ${count(words[1] ?? '64', 'x SYMBOL|ADDRESS [BYTES]')})`,
  },
  xp: {
    usage: 'xp ADDRESS [BYTES]',
    help: 'guest-physical memory',
    code: (words) => {
      const at = value(needed(words, 'xp ADDRESS [BYTES]'));
      if (at.startsWith("'")) {
        throw new NemuError('USAGE', `${words[0]} is not a guest-physical address, as xp ADDRESS [BYTES] takes one.`, {
          hint: `x ${words[0]} reads at a symbol of the kernel; search ${words[0]} looks for text.`,
        });
      }
      return `await vm.memory.read(${at}, ${count(words[1] ?? '64', 'xp ADDRESS [BYTES]')})`;
    },
  },
  walk: {
    usage: 'walk ADDRESS [VCPU]',
    help: "the page tables' way to an address",
    code: (words) => {
      const at = value(needed(words, 'walk ADDRESS [VCPU]'));
      return `await vm.walk(${at.startsWith("'") || at.endsWith('n') ? at : `${at}n`}${words[1] ? `, ${count(words[1], 'walk ADDRESS [VCPU]')}` : ''})`;
    },
  },
  search: {
    usage: 'search TEXT',
    help: 'where a text is in RAM',
    verbatim: true,
    code: (words, rest) => {
      needed(words, 'search TEXT');
      return `await vm.memory.search(${quote(rest)})`;
    },
  },
  pci: {
    usage: 'pci [NAME|ADDRESS]',
    help: 'a PCI function in words and bytes; the tree without a name',
    code: ([which]) => (which === undefined ? "await vm.info('pci')" : `(await vm.pci(${quote(which)})).decode()`),
  },
  acpi: {
    usage: 'acpi [TABLE]',
    help: 'an ACPI table in words; the list without a name',
    code: ([which]) => (which === undefined ? "await vm.info('acpi')" : `await (await vm.acpi(${quote(which)})).asl()`),
  },
  cpu: {
    usage: 'cpu add|remove [N]',
    help: 'plug vCPUs, or take the last ones out',
    words: ['add', 'remove'],
    code: ([what, many = '1']) => {
      if (what !== 'add' && what !== 'remove') throw new NemuError('USAGE', 'cpu add [N], or cpu remove [N].');
      return `await vm.cpus.${what}(${count(many, 'cpu add|remove [N]')})`;
    },
  },
  memory: {
    usage: 'memory plug SIZE [KEY=VALUE…] | memory resize ID SIZE',
    help: 'plug a DIMM: node=, slot=, id=, backend=, path=, hugepages=; another size for a virtio-mem device',
    words: ['plug', 'resize'],
    next: (words, vm) => {
      if (words.length === 0) return ['plug', 'resize'];
      return words.length === 1 && words[0] === 'resize' ? vm.memory.virtio.map(({ id }) => id) : [];
    },
    code: ([what, size, ...options]) => {
      if (what === 'resize' && size !== undefined && options.length === 1) {
        return `await vm.memory.resize(${quote(size)}, ${quote(options[0])})`;
      }
      if (what !== 'plug' || size === undefined) {
        throw new NemuError('USAGE', 'memory plug SIZE [KEY=VALUE…], or memory resize ID SIZE.');
      }
      const fields = fieldsCode('memory plug', findPluggable('memory') as Options, options);
      return `await vm.memory.plug(${quote(size)}${fields.length > 0 ? `, { ${fields.join(', ')} }` : ''})`;
    },
  },
  plug: {
    usage: 'plug TYPE [KEY=VALUE…]',
    help: 'plug a device: virtio-blk file=a.qcow2, virtio-net, virtio-rng, pcie-switch ports=4, cpu, memory size=1G',
    next: (words) => plugWords(words),
    code: (words) => plugCode(needed(words, 'plug TYPE [KEY=VALUE…]'), words.slice(1)),
  },
  nvdimm: {
    usage: 'nvdimm plug FILE [KEY=VALUE…]',
    help: 'plug persistent memory on a file: size=, label-size=, readonly=, share=, node=, id=',
    words: ['plug'],
    code: ([what, file, ...options]) => {
      if (what !== 'plug' || file === undefined) throw new NemuError('USAGE', 'nvdimm plug FILE [KEY=VALUE…].');
      return `await vm.nvdimm.plug({ ${[`file: ${quote(file)}`, ...fieldsCode('nvdimm plug', findPluggable('nvdimm') as Options, options)].join(', ')} })`;
    },
  },
  balloon: {
    usage: 'balloon [SIZE]',
    help: 'what the balloon holds; with a size, ask the guest for so much',
    code: ([size]) => `await vm.memory.balloon(${size === undefined ? '' : quote(size)})`,
  },
  disk: {
    usage: 'disk NAME resize|change|throttle …',
    forms: ['resize SIZE', 'change FILE', 'throttle iops=500 bps=10000000', 'throttle off'],
    help: 'another size, medium or limits for a disk, while the guest runs: iops=, bps=, …',
    next: ([name, what, ...options], vm) => {
      if (name === undefined) return Object.keys(vm.disks);
      if (what === undefined) return ['resize', 'change', 'throttle'];
      return what === 'throttle'
        ? [...(options.length === 0 ? ['off'] : []), ...optionWords(LIMITS.disk, options)]
        : [];
    },
    code: ([name, what, operand, ...more]) => {
      const disk = `await vm.disks[${quote(name ?? '')}]`;
      if (what === 'throttle') return `${disk}.throttle(${limitsCode('disk', operand ? [operand, ...more] : [])})`;
      if (name === undefined || operand === undefined || (what !== 'resize' && what !== 'change')) {
        throw new NemuError('USAGE', 'disk NAME resize SIZE, disk NAME change FILE, or disk NAME throttle iops=500.');
      }
      return `${disk}.${what}(${quote(operand)})`;
    },
  },
  net: {
    usage: 'net NAME link|forward|unforward|throttle|backend …',
    forms: [
      ...['link on|off', 'forward HOSTPORT:PORT', 'unforward HOSTPORT', 'throttle pps=1000 bps-rx=10000000'],
      ...['throttle off', 'backend user [net=…]', 'backend tap [ifname=tap0]'],
    ],
    help: "a card's cable, ports of the host that lead into the guest, limits (pps=, bps=, …), and its network",
    next: ([name, what, ...options], vm) => {
      if (name === undefined) return Object.keys(vm.nets);
      if (what === undefined) return ['link', 'forward', 'unforward', 'throttle', 'backend'];
      if (what === 'throttle') return [...(options.length === 0 ? ['off'] : []), ...optionWords(LIMITS.net, options)];
      if (what === 'backend') {
        return options.length === 0 ? ['user', 'tap'] : optionWords(BACKEND, ['type', ...options.slice(1)]);
      }
      return what === 'link' && options.length === 0 ? ['on', 'off'] : [];
    },
    code: ([name, what, operand = '', ...more]) => {
      const card = `await vm.nets[${quote(name ?? '')}]`;
      const ports = /^(\d+):(\d+)$/.exec(operand);
      if (what === 'link' && /^(on|off)$/.test(operand)) return `${card}.link(${operand === 'on'})`;
      if (what === 'forward' && ports) return `${card}.forward({ hostPort: ${ports[1]}, guestPort: ${ports[2]} })`;
      if (what === 'unforward' && /^\d+$/.test(operand)) return `${card}.unforward(${operand})`;
      if (what === 'throttle') return `${card}.throttle(${limitsCode('net', operand ? [operand, ...more] : [])})`;
      if (what === 'backend' && /^(user|tap)$/.test(operand)) {
        return `${card}.backend({ ${[`type: ${quote(operand)}`, ...fieldsCode('net NAME backend', BACKEND, more)].join(', ')} })`;
      }
      throw new NemuError('USAGE', 'net NAME link on|off, or what help net lists.', {
        hint: 'net net0 forward 2222:22, net net0 unforward 2222, net net0 throttle pps=1000, net net0 backend tap ifname=tap0.',
      });
    },
  },
  unplug: {
    usage: 'unplug ID [force]',
    help: 'take a device out, when the guest lets go; with force, one of PCI at once',
    next: (words, vm) => (words.length === 0 ? unpluggable(vm) : words.length === 1 ? ['force'] : []),
    code: (words) => {
      const id = quote(needed(words, 'unplug ID [force]'));
      if (words[1] !== undefined && words[1] !== 'force') {
        throw new NemuError('USAGE', `unplug ID, or unplug ID force: not "${words[1]}".`);
      }
      return `await vm.unplug(${id}${words[1] ? ', { force: true }' : ''})`;
    },
  },
  undo: plain('undo', 'take the last action back', 'await vm.journal.undo()'),
  redo: plain('redo', 'do it again', 'await vm.journal.redo()'),
  history: plain('history', 'what was done', 'vm.journal.lines'),
  save: {
    usage: 'save FILE',
    help: 'what was done, as a script for nemu run --script',
    code: (words, rest) => {
      needed(words, 'save FILE');
      return `vm.journal.save(${quote(pathOf(words, rest))})`;
    },
  },
  describe: {
    usage: 'describe [FILE]',
    help: 'the machine as it is now, as machine.yaml; writes it to a file',
    code: (words, rest) =>
      words.length === 0 ? 'await vm.describe()' : `(await vm.describe()).save(${quote(pathOf(words, rest))})`,
  },
  apply: {
    usage: 'apply FILE | apply plan FILE',
    help: 'have the machine become what machine.yaml says; with plan, only say how',
    words: ['plan'],
    code: (words, rest) => {
      needed(words, 'apply FILE, or apply plan FILE');
      if (words[0] !== 'plan' || words.length === 1) return `await vm.apply(${quote(pathOf(words, rest))})`;
      return `await vm.apply(${quote(pathOf(words.slice(1), rest.replace(/^plan\s+/, '')))}, { dryRun: true })`;
    },
  },
};

/**
 * The code of a line in short form.
 * @returns undefined for a line that is code already.
 * @throws NemuError USAGE.
 */
export function commandCode(line: string): string | undefined {
  const match = /^\s*([a-z]+)(?:\s+(\S.*?))?\s*$/.exec(line);
  if (!match) return undefined;
  const [, name, rest = ''] = match;
  if (!Object.hasOwn(COMMANDS, name)) return undefined;
  // `pause = 1` and `info.x` are code; so is `x * 2`. `/x` and `../x` are files.
  if (/^([=*%&|^<>?:+,;)\]}]|\/(?!\w)|\.(?!\.?\/)|-(?!\w))/.test(rest)) return undefined;
  const { verbatim = false, code } = COMMANDS[name];
  return code(verbatim ? rest.split(/\s+/).filter(Boolean) : splitWords(rest), rest);
}

/**
 * What there is, or more of one command; `plug` with a type lists its options.
 * @throws NemuError USAGE for what is none.
 */
export function commandHelp(name?: string, type?: string): string {
  if (name !== undefined) return helpOnCommand(name, type);
  return [
    ...twoColumns(Object.values(COMMANDS).map(({ usage, help }) => [usage, help])),
    '',
    'help COMMAND, and help plug TYPE, say more.',
    'Everything else is JavaScript (or TypeScript) with `vm` in scope; `vm?` says what it has. Promises are awaited.',
    'Tab completes, Ctrl-R searches, .editor takes several lines, Ctrl-D leaves.',
  ].join('\n');
}

function helpOnCommand(name: string, type: string | undefined): string {
  const command = Object.hasOwn(COMMANDS, name) ? COMMANDS[name] : undefined;
  if (!command) {
    const near = didYouMean(name, Object.keys(COMMANDS));
    throw new NemuError('USAGE', `There is no command "${name}".`, {
      hint: near ? `Did you mean ${near}?` : 'help lists them.',
    });
  }
  if (name === 'plug' && type !== undefined) {
    const what = findPluggable(type);
    if (what) return plugHelp(what);
    const near = didYouMean(type, plugTypes());
    throw new NemuError('USAGE', `There is no "${type}" to plug.`, {
      hint: near ? `Did you mean ${near}?` : `There are ${plugTypes().join(', ')}.`,
    });
  }
  if (name === 'info')
    return [command.usage, ...Object.entries(INFO).map(([topic, { help }]) => `  ${topic.padEnd(10)}  ${help}`)].join(
      '\n',
    );
  const types = name === 'plug' ? [`  types: ${plugTypes().join(', ')}`] : [];
  const forms = (command.forms ?? []).map((form) => `  ${name} NAME ${form}`);
  return [command.usage, `  ${command.help}`, ...types, ...forms].join('\n');
}
