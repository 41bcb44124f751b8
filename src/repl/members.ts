/** What code names that is not there: a command, a member, a device. */
import { NemuError } from '../client/errors.ts';
import { didYouMean } from '../client/suggest.ts';
import { COMMANDS } from './commands.ts';
import { topicOf } from './help.ts';
import type { Vm } from './vm.ts';

/** Words that code may begin with, which are no mistyped commands. */
const KEYWORDS = new Set(
  'async await break case catch class const continue debugger default delete do else export for function if import in instanceof let new return static switch throw try type typeof using var void while with yield'.split(
    ' ',
  ),
);

/** What a line was meant to be whose first word is nearly a command: `unplgu dimm0`. */
export function mistypedCommand(line: string): NemuError | undefined {
  const word = /^\s*([a-z]+)\s+\S/.exec(line)?.[1];
  if (word === undefined || KEYWORDS.has(word) || Object.hasOwn(COMMANDS, word)) return undefined;
  const near = didYouMean(word, [...Object.keys(COMMANDS), 'help']);
  return near === undefined
    ? undefined
    : new NemuError('USAGE', `There is no command "${word}".`, { hint: `Did you mean ${near}?` });
}

/** Steps of `.name`, `['name']` and `[0]`, from `vm` on. */
const CHAIN = /\bvm((?:\??\.[A-Za-z_$][\w$]*|\[(?:'[^']*'|"[^"]*"|\d+)\])+)/g;
const STEP = /\.([A-Za-z_$][\w$]*)|\[(?:'([^']*)'|"([^"]*)"|(\d+))\]/g;

const KINDS: Readonly<Record<string, string>> = { 'vm.disks': 'disk', 'vm.nets': 'network card', 'vm.cpus': 'vCPU' };

/** Code that is a chain and nothing more: of that alone one knows that what it gives was to be there. */
const BARE = new RegExp(`^\\s*(?:await\\s+)?(?:${CHAIN.source.replaceAll('\\??\\.', '\\.')})\\s*;?\\s*$`);
export const isBareChain = (code: string): boolean => BARE.test(code);

/** The first member that code names and that is not there; undefined where all are. */
export function missingMember(code: string, vm: Vm): NemuError | undefined {
  for (const [, steps] of code.matchAll(CHAIN)) {
    let at: unknown = vm;
    let path = 'vm';
    for (const [step, ...names] of steps.matchAll(STEP)) {
      if ((typeof at !== 'object' && typeof at !== 'function') || at === null) break;
      const name = names.find((each) => each !== undefined) as string;
      if (!(name in at)) return missing(at, path, name);
      at = (at as Record<string, unknown>)[name];
      path += step;
      // What a method gives is not known before it was called.
      if (typeof at === 'function' && !topicOf(at)) break;
    }
  }
  return undefined;
}

function missing(at: object, path: string, name: string): NemuError | undefined {
  const what = KINDS[path];
  const topic = topicOf(at);
  const known = what
    ? [...Object.keys(at), ...(topic ? Object.keys(topic.members) : [])]
    : Object.keys(topic?.members ?? {}).filter((each) => each in at);
  if (known.length === 0 && !what) return undefined;
  const near = didYouMean(name, known);
  const hint = near ? `Did you mean ${near}?` : `There is ${known.join(', ') || 'none'}.`;
  const text = what ? `There is no ${what} "${name}".` : `${path} has no "${name}".`;
  return new NemuError('MEMBER', text, { hint });
}
