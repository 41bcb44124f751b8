/** Shell completion, written from the command tree itself. */
import type { Command, Option } from 'commander';
import { GuestArgument, MachineArgument, MachineOption } from './named.ts';

export const SHELLS = ['bash', 'zsh', 'fish'] as const;
export type Shell = (typeof SHELLS)[number];

interface Entry {
  /** Words of the command, for example `guest fetch`. */
  readonly path: string;
  /** What it takes the name of. */
  readonly named: keyof typeof NAMES | undefined;
  /** Its second argument is the name of one of that machine's consoles. */
  readonly console: boolean;
  /** Options whose value can be told, or is a new name that nothing has yet. */
  readonly valued: readonly Valued[];
  readonly words: { readonly name: string; readonly description: string }[];
}

interface Valued {
  readonly option: string;
  readonly value: 'machine' | 'new' | readonly string[];
}

/** Every machine has a folder, whether it runs or has ended. */
const MACHINES = `"\${XDG_STATE_HOME:-$HOME/.local/state}/nemu/machines"`;
const GUESTS = `"\${XDG_CACHE_HOME:-$HOME/.cache}/nemu/guests"`;
const IMAGES = `"\${XDG_CACHE_HOME:-$HOME/.cache}/nemu/images"`;

/** What prints names: in bash and zsh, which do not wait for a program, and in fish. */
const NAMES = {
  machine: { shell: `command ls ${MACHINES} 2>/dev/null`, fish: 'nemu ps -aq' },
  guest: {
    shell: `command ls ${GUESTS} 2>/dev/null; command ls ${IMAGES} 2>/dev/null | sed -n 's/\\.qcow2$//p'`,
    fish: `nemu guest list --json | string replace -rf '.*"name": *"([^"]*)".*' '$1'`,
  },
} as const;

/** Every console of a machine has a log. */
const CONSOLE_LOG = '^console-(.*)\\.log$';

interface HiddenCommand {
  readonly _hidden?: boolean;
}

function visible(command: Command): Command[] {
  return command.commands.filter((each) => !(each as Command & HiddenCommand)._hidden);
}

function entries(command: Command, path: string[] = []): Entry[] {
  const words = [
    ...visible(command).map((each) => ({ name: each.name(), description: each.description() })),
    ...command.options.flatMap(({ long, description }) => (long ? [{ name: long, description }] : [])),
    { name: '--help', description: 'help' },
  ];
  return [
    {
      path: path.join(' '),
      words,
      named: command.registeredArguments.some((each) => each instanceof MachineArgument)
        ? 'machine'
        : command.registeredArguments.some((each) => each instanceof GuestArgument)
          ? 'guest'
          : undefined,
      console: command.registeredArguments.at(1)?.name() === 'console',
      valued: command.options.flatMap(valuesOf),
    },
    ...visible(command).flatMap((each) => entries(each, [...path, each.name()])),
  ];
}

/** What an option takes, by each of its names. */
function valuesOf(option: Option): Valued[] {
  const { argChoices, flags, long, short } = option;
  const value =
    option instanceof MachineOption ? 'machine' : (argChoices ?? (/<name>$/.test(flags) ? 'new' : undefined));
  if (value === undefined) return [];
  return [short, long].flatMap((name) => (name ? [{ option: name, value }] : []));
}

const single = (text: string) => `'${text.replaceAll("'", "'\\''")}'`;

const patterns = (texts: readonly string[]) => texts.map(single).join('|');

/** What bash offers behind options, those with the same value together. */
function valuedCases(all: readonly Entry[]): string {
  const behind = new Map<string, string[]>();
  for (const { path, valued } of all) {
    for (const { option, value } of valued) {
      const words =
        value === 'machine' ? `"$(${NAMES.machine.shell})"` : single(value === 'new' ? '' : value.join(' '));
      behind.set(words, [...(behind.get(words) ?? []), `${path} ${option}`]);
    }
  }
  return [...behind].map(([words, places]) => `    ${patterns(places)}) words=${words} ;;`).join('\n');
}

/** A script to source. Options that take a file complete to files. */
export function completionScript(shell: Shell, root: Command): string {
  const all = entries(root);
  if (shell === 'fish') {
    return `${all
      .flatMap(({ path, words, named, console, valued }) => {
        const condition =
          path === ''
            ? '__fish_use_subcommand'
            : path
                .split(' ')
                .map((word) => `__fish_seen_subcommand_from ${word}`)
                .join('; and ');
        const names = named
          ? [`complete -c nemu -f -n ${single(condition)} -a ${single(`(${NAMES[named].fish})`)} -d ${named}`]
          : [];
        if (console) {
          const second = `${condition}; and test (count (commandline -opc)) -eq 3`;
          const list = `nemu console (commandline -opc)[3] --list --json | string replace -rf '.*"name": *"([^"]*)".*' '$1'`;
          names.push(`complete -c nemu -f -n ${single(second)} -a ${single(`(${list})`)} -d console`);
        }
        for (const { option, value } of valued) {
          const flag = option.startsWith('--') ? `-l ${option.slice(2)}` : `-s ${option.slice(1)}`;
          const among = value === 'machine' ? `(${NAMES.machine.fish})` : value === 'new' ? '' : value.join(' ');
          names.push(`complete -c nemu -n ${single(condition)} ${flag} -x${among && ` -a ${single(among)}`}`);
        }
        return names.concat(
          words.map(({ name, description }) =>
            name.startsWith('--')
              ? `complete -c nemu -n ${single(condition)} -l ${name.slice(2)} -d ${single(description)}`
              : `complete -c nemu -f -n ${single(condition)} -a ${name} -d ${single(description)}`,
          ),
        );
      })
      .join('\n')}\n`;
  }
  const cases = all
    .map(({ path, words }) => `    ${single(path)}) words=${single(words.map(({ name }) => name).join(' '))} ;;`)
    .join('\n');
  const body = `_nemu() {
  local path='' word words='' value=yes current="\${COMP_WORDS[COMP_CWORD]}" before="\${COMP_WORDS[COMP_CWORD-1]}"
  local -a given=()
  for word in "\${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
    case "$word" in
      --) return 0 ;;
      -*) ;;
      *) case "\${path:+$path }$word" in
${all
  .filter(({ path }) => path !== '')
  .map(({ path }) => `        ${single(path)}) path=${single(path)} ;;`)
  .join('\n')}
        *) given+=("$word") ;;
      esac ;;
    esac
  done
  case "$path" in
${cases}
  esac
  case "$path" in
${(['machine', 'guest'] as const)
  .map(
    (kind) =>
      `    ${patterns(all.flatMap(({ path, named }) => (named === kind ? [path] : [])))}) [[ "$current" != -* ]] && words="$words $(${NAMES[kind].shell})" ;;`,
  )
  .join('\n')}
  esac
  case "$path" in
    ${all
      .filter(({ console }) => console)
      .map(({ path }) => single(path))
      .join('|')}) [[ "$current" != -* && \${#given[@]} = 1 ]] &&
      words="$(command ls ${MACHINES}/"\${given[0]}" 2>/dev/null | sed -nE 's/${CONSOLE_LOG}/\\1/p')" ;;
  esac
  case "$path $before" in
${valuedCases(all)}
    *) value=no ;;
  esac
  COMPREPLY=($(compgen -W "$words" -- "$current"))
  [ "$path" = run ] && [ $value = no ] && [[ "$current" != -* ]] && COMPREPLY+=($(compgen -f -- "$current"))
  return 0
}
complete -o filenames -F _nemu nemu
`;
  return shell === 'zsh' ? `autoload -U +X bashcompinit && bashcompinit\n${body}` : body;
}
