/** What may stand at the end of a line: words of commands, members of the machine's objects, names of what it has now. */
import { table } from '../client/text_table.ts';
import { COMMANDS } from './commands.ts';
import { topicOf } from './help.ts';
import { INFO } from './info.ts';
import { unpluggable } from './plug_command.ts';
import { findPluggable, optionText, plugTypes, typedCompletions } from './plug_options.ts';
import type { Vm } from './vm.ts';

export interface Completion {
  /** Each with what it is, where that can be said. */
  readonly words: readonly (readonly [word: string, what?: string])[];
  /** The part of the line that they are for. */
  readonly part: string;
}

type Words = Completion['words'];

/** Members of what code names: `vm.cpus.`, `vm.disks.vda.thr`. */
const MEMBER = /(?:^|[^\w$.'"])vm((?:\.[A-Za-z_$][\w$]*|\[(?:'[^']*'|"[^"]*"|\d+)\])*)\.([\w$]*)$/;
const STEP = /\.([A-Za-z_$][\w$]*)|\[(?:'([^']*)'|"([^"]*)"|(\d+))\]/g;
/** A name of something that the machine has, in quotation marks. */
const NAMES: readonly (readonly [RegExp, (vm: Vm) => Words | Promise<Words>])[] = [
  [/vm\.(?:unplug|has)\(\s*(['"])([^'"]*)$/, devices],
  [/vm\.pci\(\s*(['"])([^'"]*)$/, functions],
  [/vm\.info\(\s*'queues',\s*(['"])([^'"]*)$/, queues],
  [/vm\.info\(\s*(['"])([^'"]*)$/, topics],
  [/vm\.disks\[\s*(['"])([^'"]*)$/, ({ disks }) => Object.keys(disks).map((name) => [name])],
  [/vm\.nets\[\s*(['"])([^'"]*)$/, ({ nets }) => Object.keys(nets).map((name) => [name])],
  [/vm\.memory\.resize\(\s*(['"])([^'"]*)$/, ({ memory }) => memory.virtio.map(({ id }) => [id, 'virtio-mem'])],
];

/** @returns undefined where there is nothing to say, and JavaScript is completed. */
export async function complete(line: string, vm: Vm): Promise<Completion | undefined> {
  const first = /^\s*([a-z]*)$/.exec(line);
  if (first) {
    const commands = Object.entries(COMMANDS).map(([name, { help }]) => [name, help] as const);
    const found = starting([...commands, ['vm', 'the machine'], ['help', 'what there is']], first[1]);
    return found.words.length > 0 ? found : undefined;
  }
  for (const [pattern, names] of NAMES) {
    const match = pattern.exec(line);
    if (!match) continue;
    const [, quote, part] = match;
    const { words } = starting(await names(vm), part);
    return { words: words.map(([word, what]) => [`${word}${quote}`, what]), part };
  }
  const typed = typedCompletions(line);
  if (typed) {
    const [words, part, what] = typed;
    return { words: words.map((word) => [word, what?.(word)]), part };
  }
  return membersOf(line, vm) ?? ofCommand(line, vm);
}

/** What is shown of words when they are asked for a second time; undefined when there is no more than the words. */
export function listing({ words }: Completion): string | undefined {
  if (words.length < 2 || words.every(([, what]) => !what)) return undefined;
  const [, ...rows] = table(
    ['', ''],
    words.map(([word, what = '']) => [word.trimEnd(), what]),
  ).split('\n');
  return rows.join('\n');
}

const starting = (words: Words, part: string): Completion => ({
  words: words.filter(([word]) => word.startsWith(part)),
  part,
});

function membersOf(line: string, vm: Vm): Completion | undefined {
  const match = MEMBER.exec(line);
  if (!match) return undefined;
  const [, steps, part] = match;
  let at: unknown = vm;
  for (const [, ...names] of steps.matchAll(STEP)) {
    const name = names.find((each) => each !== undefined) as string;
    at = (at as Record<string, unknown> | undefined)?.[name];
  }
  const topic = topicOf(at);
  if (topic) {
    const members = Object.entries(topic.members).filter(([name]) => name in (at as object));
    return starting(
      members.map(([name, [signature, text]]) => [name, `${signature}  ${text}`]),
      part,
    );
  }
  // Names that are none of JavaScript stand in brackets.
  const isNamed = steps === '.disks' || steps === '.nets';
  const names = isNamed ? Object.keys(at as object).filter((name) => /^[\w$]+$/.test(name)) : undefined;
  return (
    names &&
    starting(
      names.map((name) => [name]),
      part,
    )
  );
}

async function ofCommand(line: string, vm: Vm): Promise<Completion | undefined> {
  const match = /^\s*([a-z]+)\s+(?:(.*?)\s+)?(\S*)$/.exec(line);
  if (!match) return undefined;
  const [, name, before = '', part] = match;
  const given = before === '' ? [] : before.split(/\s+/);
  if (name === 'help') {
    if (given.length === 0)
      return starting(
        Object.entries(COMMANDS).map(([each, { help }]) => [each, help]),
        part,
      );
    return starting(given[0] === 'plug' ? plugTypes().map((type) => [type]) : [], part);
  }
  if (!Object.hasOwn(COMMANDS, name)) return undefined;
  if (name === 'pci' && given.length === 0) return starting(await functions(vm), part);
  if (name === 'info')
    return starting(given.length === 0 ? topics() : given[0] === 'queues' ? await queues(vm) : [], part);
  if (name === 'unplug' && given.length === 0) return starting(devices(vm), part);
  const { words, next } = COMMANDS[name];
  const possible = next?.(given, vm) ?? (given.length === 0 ? words : undefined);
  const plugged = name === 'plug' ? findPluggable(given[0] ?? '') : undefined;
  return (
    possible &&
    starting(
      possible.map((word) => [word, plugged && optionText(plugged, word)]),
      part,
    )
  );
}

function topics(): Words {
  return Object.entries(INFO).map(([topic, { help }]) => [topic, help]);
}

/** What can be taken out. */
function devices(vm: Vm): Words {
  const types = new Map(vm.plugged?.pci.devices.map(({ id, type, port }) => [id, `${type} in ${port}`]));
  return unpluggable(vm).map((id) => [id, types.get(id)]);
}

async function functions({ machine }: Vm): Promise<Words> {
  return (await machine.devices()).pci.map(({ name, address }) => [name, address]);
}

async function queues({ machine }: Vm): Promise<Words> {
  const { pci, mmio } = await machine.devices();
  return [...pci.flatMap(({ virtio }) => virtio ?? []), ...mmio].map((each) => [
    each.name,
    `${each.queues.length} queues`,
  ]);
}
