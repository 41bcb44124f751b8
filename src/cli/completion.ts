/** Shell completion, written from the command tree itself. */
import type { Command } from 'commander';

export const SHELLS = ['bash', 'zsh', 'fish'] as const;
export type Shell = (typeof SHELLS)[number];

interface Entry {
  /** Words of the command, for example `guest fetch`. */
  readonly path: string;
  /** It takes the name of a machine in the background. */
  readonly machine: boolean;
  /** Its second argument is the name of one of that machine's consoles. */
  readonly console: boolean;
  /** Options that take the name of a machine. */
  readonly machineOptions: readonly string[];
  readonly words: { readonly name: string; readonly description: string }[];
}

/** Arguments that are such a name. */
const MACHINE_NAMES = new Set(['name', 'machine']);
/** Every machine has a folder, whether it runs or has ended. */
const MACHINES = `"\${XDG_STATE_HOME:-$HOME/.local/state}/nemu/machines"`;

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
      // Consoles without a machine are those of any: they begin with its name.
      machine: command.registeredArguments.some(
        (each, index) => MACHINE_NAMES.has(each.name()) || (index === 0 && each.name() === 'console'),
      ),
      console: command.registeredArguments.at(1)?.name() === 'console',
      machineOptions: command.options.flatMap(({ long, flags }) => (long && /<name>$/.test(flags) ? [long] : [])),
    },
    ...visible(command).flatMap((each) => entries(each, [...path, each.name()])),
  ];
}

const single = (text: string) => `'${text.replaceAll("'", "'\\''")}'`;

/** A script to source. Options that take a file complete to files. */
export function completionScript(shell: Shell, root: Command): string {
  const all = entries(root);
  if (shell === 'fish') {
    return `${all
      .flatMap(({ path, words, machine, console, machineOptions }) => {
        const condition =
          path === ''
            ? '__fish_use_subcommand'
            : path
                .split(' ')
                .map((word) => `__fish_seen_subcommand_from ${word}`)
                .join('; and ');
        const names = machine ? [`complete -c nemu -f -n ${single(condition)} -a '(nemu ps -aq)' -d machine`] : [];
        if (console) {
          const named = `${condition}; and test (count (commandline -opc)) -eq 3`;
          const list = `nemu console (commandline -opc)[3] --list --json | string replace -rf '.*"name": *"([^"]*)".*' '$1'`;
          names.push(`complete -c nemu -f -n ${single(named)} -a ${single(`(${list})`)} -d console`);
        }
        for (const option of machineOptions) {
          names.push(`complete -c nemu -n ${single(condition)} -l ${option.slice(2)} -x -a '(nemu ps -aq)'`);
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
  local path='' word words='' current="\${COMP_WORDS[COMP_CWORD]}" before="\${COMP_WORDS[COMP_CWORD-1]}"
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
    ${all
      .filter(({ machine }) => machine)
      .map(({ path }) => single(path))
      .join('|')}) [[ "$current" != -* ]] && words="$words $(command ls ${MACHINES} 2>/dev/null)" ;;
  esac
  case "$path" in
    ${all
      .filter(({ console }) => console)
      .map(({ path }) => single(path))
      .join('|')}) [[ "$current" != -* && \${#given[@]} = 1 ]] &&
      words="$(command ls ${MACHINES}/"\${given[0]}" 2>/dev/null | sed -nE 's/${CONSOLE_LOG}/\\1/p')" ;;
  esac
  case "$path $before" in
    ${all
      .flatMap(({ path, machineOptions }) => machineOptions.map((option) => single(`${path} ${option}`)))
      .join('|')}) words="$(command ls ${MACHINES} 2>/dev/null)" ;;
  esac
  COMPREPLY=($(compgen -W "$words" -- "$current"))
  [ "$path" = run ] && [[ "$current" != -* ]] && COMPREPLY+=($(compgen -f -- "$current"))
  return 0
}
complete -o filenames -F _nemu nemu
`;
  return shell === 'zsh' ? `autoload -U +X bashcompinit && bashcompinit\n${body}` : body;
}
