/** The commands for machines in the background. */
import { existsSync } from 'node:fs';
import { type Command, Option } from 'commander';
import { NemuError } from '../../client/errors.ts';
import { didYouMean } from '../../client/suggest.ts';
import { GLYPHS } from '../../tui/graph.ts';
import { THEMES } from '../../tui/style.ts';
import { MachineArgument, MachineOption } from '../named.ts';
import { type AttachOptions, runAttached } from './attach_command.ts';
import { type AttachedMachine, attachMachine } from './connection.ts';
import { type ConsoleOptions, runConsole } from './console_command.ts';
import { type ApplyOptions, runApply, runDescribe } from './describe_command.ts';
import { type ExecOptions, runExec } from './exec_command.ts';
import { runtimePaths } from './folders.ts';
import { runGdb } from './gdb_command.ts';
import { type ListOptions, list } from './list_command.ts';
import { type LogsOptions, showEvents, showLogs } from './logs_command.ts';
import { findMachine, isUp, listMachines, machineNamed } from './records.ts';
import { kill, type RemoveOptions, remove, type StopOptions, stop } from './stop_command.ts';
import { runTiles, type TileOptions } from './tile_command.ts';
import { type TopOptions, top } from './top_command.ts';

const NAME_HELP = 'name of the machine; the only one that runs without it';
const examples = (text: string) => `\nExamples:\n${text.replace(/^\n/, '')}`;

/** Does something with a machine, and leaves it as it is. */
async function withMachine(name: string | undefined, action: (attached: AttachedMachine) => Promise<number>) {
  const attached = await attachMachine(name);
  try {
    process.exitCode = await action(attached);
  } finally {
    attached.close();
  }
}

/** The QMP socket of a machine in the background; what is no such name is a path. */
export function qmpSocketOf(name: string): string {
  if (name.includes('/') || name.startsWith('unix:')) return name;
  const known = findMachine(name);
  if (known && isUp(known)) return runtimePaths(name).qmp;
  if (existsSync(name)) return name;
  machineNamed(name);
  throw new NemuError('MACHINE', `The machine ${name} does not run.`, { hint: 'nemu ps -a tells what became of it.' });
}

/** Is this word a machine that runs, and not a file? */
export const isMachine = (word: string): boolean => {
  const known = findMachine(word);
  return known !== undefined && isUp(known);
};

/** What there is to say of a word that names neither a machine that runs nor a file. */
export function noMachineOrFile(word: string): NemuError {
  const known = listMachines();
  if (known.some(({ name }) => name === word)) {
    return new NemuError('USAGE', `The machine ${word} does not run.`, { hint: 'nemu ps -a tells what became of it.' });
  }
  const near = didYouMean(
    word,
    known.filter(isUp).map(({ name }) => name),
  );
  return new NemuError('USAGE', `There is no machine or file "${word}".`, {
    hint: near ? `Did you mean ${near}?` : 'nemu ps lists the machines that run.',
  });
}

export function addMachines(nemu: Command): void {
  addLooking(nemu);
  addJoining(nemu);
  addDebugging(nemu);
  addEnding(nemu);
}

function addLooking(nemu: Command): void {
  nemu
    .command('ps')
    .description('lists machines in the background: those that run, and those that crashed')
    .option('-a, --all', 'those that have ended too')
    .option('-q, --quiet', 'names alone')
    .option('--json', 'print JSON')
    .addHelpText(
      'after',
      examples(`
  nemu ps
  nemu ps -a --json
`),
    )
    .action(async (options: ListOptions) => {
      process.exitCode = await list(options);
    });

  nemu
    .command('top')
    .description('lists what all machines in the background do, as it changes; keys join and end them, ? tells which')
    .option('--interval <time>', 'time between two looks', '2s')
    .option('--sort <column>', 'a word of the head, as cpu, exits or read: the largest first, names from a on', 'name')
    .option('--once', 'one look, after one interval, and no screen')
    .option('--json', 'the same as JSON')
    .addHelpText(
      'after',
      examples(`
  nemu top
  nemu top --once --interval 5s --sort cpu
`),
    )
    .action(async (options: TopOptions) => {
      process.exitCode = await top(options);
    });

  nemu
    .command('logs')
    .description('prints what a console has printed, and what a crash left')
    .addArgument(new MachineArgument('[name]', NAME_HELP))
    .argument('[console]', 'com1, hvc0 and so on; `nemu console NAME --list` lists them')
    .option('-f, --follow', 'goes on until the machine ends')
    .option('-n, --lines <count>', 'the last lines alone')
    .option('-t, --timestamps', 'when each line came')
    .option('--grep <text>', 'lines with this text alone')
    .option('--raw', 'the bytes as they came, with what the guest asks a terminal')
    .option('--engine', 'what the engine itself said, in place of a console')
    .option('--json', "what is known of the machine and of its crash, in place of a console's log")
    .addHelpText(
      'after',
      examples(`
  nemu logs work
  nemu logs work -t -n 100 -f
  nemu logs work --grep 'call trace'
`),
    )
    .action(async (name: string | undefined, console: string | undefined, options: LogsOptions) => {
      process.exitCode = await showLogs(machineNamed(name), console, options);
    });

  nemu
    .command('events')
    .description('prints what happened to a machine: boot phases, hotplug stages, faults, who came to its consoles')
    .addArgument(new MachineArgument('[name]', NAME_HELP))
    .option('-f, --follow', 'goes on until the machine ends')
    .option('-n, --lines <count>', 'the last events alone')
    .option('--json', 'one JSON object a line')
    .addHelpText(
      'after',
      examples(`
  nemu events work -f
  nemu events work --json | jq 'select(.type == "request")'
`),
    )
    .action(async (name: string | undefined, options: LogsOptions) => {
      process.exitCode = await showEvents(machineNamed(name), options);
    });
}

function addJoining(nemu: Command): void {
  nemu
    .command('attach')
    .description('shows a machine in the workstation; `q` leaves, and it goes on')
    .addArgument(new MachineArgument('[name]', NAME_HELP))
    .option('--readonly', 'nothing can be changed or typed')
    .option('--console', 'its console in place of the workstation, as nemu console does')
    .addOption(new Option('--theme <name>', 'colours; NO_COLOR is heeded').choices(THEMES))
    .addOption(new Option('--graphs <glyphs>', 'what graphs are drawn with').choices(GLYPHS))
    .option('--no-mouse', 'leaves the mouse to the terminal')
    .addHelpText(
      'after',
      examples(`
  nemu attach
  nemu attach work --readonly
`),
    )
    .action(
      async (name: string | undefined, { console, ...options }: AttachOptions & { readonly console?: boolean }) => {
        // Before anything else: a mistyped name is told wherever this runs.
        const terminal = process.stdin.isTTY && process.stdout.isTTY;
        await withMachine(name, (attached) => {
          const watch = options.readonly ? { watch: true } : {};
          return terminal && !console
            ? runAttached(attached, options)
            : runConsole(attached, undefined, {
                ...{ ...watch, history: HISTORY, prefix: '^A' },
                again: `nemu attach ${attached.name} --console`,
              });
        });
      },
    );

  nemu
    .command('console')
    .description('puts this terminal on a console; Ctrl-] leaves, and the machine goes on')
    .addArgument(new MachineArgument('[name]', NAME_HELP))
    .argument('[console]', 'com1, hvc0 and so on')
    .option('--list', 'lists the consoles: who is there, and the pseudo-terminal that any program may open')
    .option('--json', 'with --list: print JSON')
    .option('--watch', 'looks on; what is typed goes nowhere')
    .option('--take', 'takes the console over from whoever drives it')
    .option('--record <file>', 'records what is shown, for nemu play')
    .option('-t, --timestamps', 'when each line came')
    .option('--history <rows>', 'rows above the screen that are shown at first', HISTORY)
    .option('--prefix <key>', 'key before the other commands', '^A')
    .addHelpText(
      'after',
      examples(`
  nemu console work
  nemu console work hvc0 --watch
  nemu console work --list
  screen $(nemu console work --list --json | jq -r '.[0].pty')
`),
    )
    .action(async (name: string | undefined, console: string | undefined, options: Omit<ConsoleOptions, 'again'>) => {
      await withMachine(name, (attached) => {
        const again = ['nemu console', attached.name, console].filter(Boolean).join(' ');
        return runConsole(attached, console, { ...options, again });
      });
    });

  nemu
    .command('tile')
    .description('shows consoles of several machines side by side; Ctrl-] q leaves, and they go on')
    .addArgument(new MachineArgument('[console...]', 'name of a machine, or name:console; all that run without any'))
    .option('--broadcast', 'what is typed goes to all of them; Ctrl-] b changes that')
    .option('--watch', 'looks on; what is typed goes nowhere')
    .addOption(new Option('--theme <name>', 'colours; NO_COLOR is heeded').choices(THEMES))
    .option('--no-mouse', 'leaves the mouse to the terminal; without it, dragging copies')
    .addHelpText(
      'after',
      examples(`
  nemu tile
  nemu tile one two:hvc0 three --broadcast
`),
    )
    .action(async (consoles: string[], options: TileOptions) => {
      process.exitCode = await runTiles(consoles, options);
    });

  nemu
    .command('describe')
    .description('prints a machine as it is now, as the machine.yaml that makes it again')
    .addArgument(new MachineArgument('[name]', NAME_HELP))
    .option('--json', 'print JSON')
    .addHelpText(
      'after',
      examples(`
  nemu describe work >machine.yaml; nemu run --config machine.yaml
`),
    )
    .action(async (name: string | undefined, options: { readonly json?: boolean }) => {
      await withMachine(name, (attached) => runDescribe(attached, options));
    });

  nemu
    .command('apply')
    .description('has a running machine become what a description says; what it does not say stays as it is')
    .argument('<file>', 'machine description in YAML or JSON, as nemu describe prints it')
    .addOption(new MachineOption('--to <name>', NAME_HELP))
    .option('--dry-run', 'says what would be done, and what only a new start does')
    .option('--json', 'print JSON')
    .addHelpText(
      'after',
      examples(`
  nemu apply --to work machine.yaml --dry-run
  nemu apply --to work machine.yaml
`),
    )
    .action(async (file: string, options: ApplyOptions) => {
      await withMachine(options.to, (attached) => runApply(attached, file, options));
    });

  nemu
    .command('exec')
    .description("runs a command in the guest, by its agent, with these standard streams; its status is nemu's")
    .addArgument(new MachineArgument('<name>', 'name of the machine'))
    .argument('[command...]', 'after --; one word is a line of shell, none a shell in a terminal')
    .option('-t, --terminal', 'the command gets a terminal, which this one shows')
    .option('--escape <key>', 'key that hangs up, or none', '^]')
    .passThroughOptions(false)
    .showHelpAfterError("(the guest's command and its options stand after --: nemu exec NAME -- ls -l)")
    .addHelpText(
      'after',
      examples(`
  nemu exec work -- dmesg
  nemu exec work -- 'cd /proc && cat version'
  tar c src | nemu exec work -- tar x -C /tmp
  nemu exec work                          a shell; Ctrl-] hangs up
  nemu exec -t work -- vi /etc/hosts
`),
    )
    .action(async (name: string, command: string[], options: ExecOptions) => {
      await withMachine(name, (attached) => runExec(attached, command, options));
    });
}

const HISTORY = '1000';

function addDebugging(nemu: Command): void {
  nemu
    .command('gdb')
    .description("runs this host's gdb on a machine, which stands still while gdb is at its prompt")
    .addArgument(new MachineArgument('[name]', NAME_HELP))
    .argument(
      '[vmlinux]',
      "the guest's kernel with symbols; found beside its image, or its own table of symbols without",
    )
    .argument('[word...]', 'after --: for gdb')
    .option('--listen <[host:]port|unix:path>', 'waits there for a gdb that is started elsewhere, and starts none')
    .option('--gdb <program>', 'this one', 'gdb')
    .option('--no-symbols', 'loads none')
    .passThroughOptions(false)
    .addHelpText(
      'after',
      examples(`
  nemu gdb work
  nemu gdb work ~/linux/vmlinux
  nemu gdb work -- -batch -ex 'info threads' -ex bt
  nemu gdb work --listen 1234             then: gdb -ex 'target remote :1234'
`),
    )
    .action(async (name: string | undefined, vmlinux: string | undefined, words: string[], options, self: Command) => {
      const given = wordsBefore(self, [name, vmlinux, ...words]);
      if (given.before.length > 2) {
        throw new NemuError('USAGE', `There is more than one vmlinux: ${given.before.slice(1).join(' ')}.`, {
          hint: "gdb's own words stand after --",
        });
      }
      const [machine, file] = given.before;
      await withMachine(machine, (attached) => runGdb(attached, file, given.after, options));
    });
}

/** Words on either side of `--`. */
function wordsBefore(self: Command, all: readonly (string | undefined)[]) {
  const raw = (self.parent as Command & { rawArgs: string[] }).rawArgs;
  const dashes = raw.indexOf('--');
  const words = all.filter((word) => word !== undefined);
  const after = dashes < 0 ? [] : raw.slice(dashes + 1);
  return { before: words.slice(0, words.length - after.length), after };
}

function addEnding(nemu: Command): void {
  nemu
    .command('stop')
    .description('has guests power off, and waits until they have')
    .addArgument(new MachineArgument('[name...]'))
    .option('--all', 'every machine')
    .option('--timeout <time>', 'how long a guest may take', '30s')
    .option('--kill', 'ends one at once that takes longer')
    .addHelpText(
      'after',
      examples(`
  nemu stop work
  nemu stop --all --kill
`),
    )
    .action(async (names: string[], options: StopOptions) => {
      process.exitCode = await stop(names, options);
    });

  nemu
    .command('kill')
    .description('ends machines at once, as if their plug was pulled')
    .addArgument(new MachineArgument('[name...]'))
    .option('--all', 'every machine')
    .action(async (names: string[], options: { readonly all?: boolean }) => {
      process.exitCode = await kill(names, options);
    });

  nemu
    .command('rm')
    .description('removes the logs of machines that have ended, and what a crash left')
    .addArgument(new MachineArgument('[name...]'))
    .option('--all', 'every machine that does not run')
    .option('--force', 'ends those that run')
    .addHelpText(
      'after',
      examples(`
  nemu rm work
  nemu rm --all
`),
    )
    .action(async (names: string[], options: RemoveOptions) => {
      process.exitCode = await remove(names, options);
    });
}
