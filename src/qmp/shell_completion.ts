/** How lines of `nemu qmp` are completed: from the server's schema, its devices, and what there is for them to use. */
import type { Member, QmpClient, Schema } from './client.ts';

/** What a property of a device names: the command that lists it, and where its name is. */
const NAMED: Readonly<Record<string, readonly [command: string, field: string]>> = {
  chardev: ['query-chardev', 'label'],
  drive: ['query-named-block-nodes', 'node-name'],
  iothread: ['query-iothreads', 'id'],
  memdev: ['query-memdev', 'id'],
};

/** What the schema does not have. */
interface More {
  readonly members?: readonly Member[];
  /** What the last word may be, or have behind its `=`. */
  readonly values?: readonly string[];
}

/** The same as `complete`, with what the server tells besides its schema. @param own words of the shell's. */
export async function completeLine(
  line: string,
  client: QmpClient,
  own: readonly string[],
): Promise<[string[], string]> {
  return complete(line, await client.schema(), own, await moreOf(line, client));
}

async function moreOf(line: string, client: QmpClient): Promise<More> {
  const [command, ...words] = line.trimStart().split(/\s+/);
  if (words.length === 0) return {};
  if (command === 'info') {
    const topics = (await client.monitor('info')).matchAll(/^info (\S+)/gm);
    return words.length === 1 ? { values: [...topics].map(([, topic]) => topic) } : {};
  }
  if (command === 'help') {
    if (words.length === 1) return { values: (await client.schema()).commands };
    return words.length === 2 && words[0] === 'device_add' ? { values: await client.drivers() } : {};
  }
  if (command !== 'device_add') return {};
  const [name, value] = (words.at(-1) as string).split('=');
  if (value !== undefined && name === 'driver') return { values: await client.drivers() };
  const driver = words.find((word) => word.startsWith('driver='))?.slice('driver='.length);
  const members = driver ? await client.propertiesOf(driver) : [];
  if (value === undefined) return { members };
  if (name === 'netdev') return { members, values: unusedNetdevs(await client.monitor('info network')) };
  if (!Object.hasOwn(NAMED, name)) return { members };
  return { members, values: await client.listOf(...NAMED[name]) };
}

/** Back ends that no card has stand in lines of their own: `n0: index=0,type=user,…`. No command of QMP lists them. */
const unusedNetdevs = (text: string): string[] =>
  [...text.matchAll(/^(\S+): index=\d+,type=(?!nic)/gm)].map(([, id]) => id);

/** @returns what the last word can become, and that word: as node:readline wants it. */
export function complete(
  line: string,
  schema: Schema,
  own: readonly string[],
  { members: more = [], values: known }: More = {},
): [string[], string] {
  const last = /\S*$/.exec(line)?.[0] ?? '';
  const before = line.slice(0, line.length - last.length).trim();
  const starting = (words: readonly string[]) => words.filter((word) => word.startsWith(last));
  if (before === '') return [starting([...schema.commands, ...own]), last];
  const [command] = before.split(/\s+/);
  const listed = schema.argumentsOf(command);
  const members = [...listed, ...more.filter(({ name }) => !listed.some((each) => each.name === name))];
  const equals = last.indexOf('=');
  if (equals > 0) {
    const member = members.find(({ name }) => name === last.slice(0, equals));
    const values = known ?? (member ? schema.valuesOf(member.type) : []);
    return [starting(values.map((value) => `${last.slice(0, equals)}=${value}`)), last];
  }
  if (known) return [starting(known), last];
  const given = new Set(before.split(/\s+/).map((word) => word.split('=')[0]));
  return [starting(members.filter(({ name }) => !given.has(name)).map(({ name }) => `${name}=`)), last];
}
