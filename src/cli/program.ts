import { existsSync } from 'node:fs';
import { Command, Option } from 'commander';
import { MACHINE_TYPES } from '../client/description.ts';
import { NemuError } from '../client/errors.ts';
import { nvdimmPersistenceSchema } from '../client/nvdimm.ts';
import { GLYPHS } from '../tui/graph.ts';
import { THEMES } from '../tui/style.ts';
import { completionScript, SHELLS, type Shell } from './completion.ts';
import { deviceHelp } from './device_options.ts';
import { examine, formatReport } from './doctor.ts';
import { EXIT, EXIT_TEXT } from './exit_codes.ts';
import { addGuest } from './guest_commands.ts';
import { addImage } from './image/commands.ts';
import { labBuild, labExec, labList, labRemove, labShell } from './lab_commands.ts';
import { runAttachedRepl } from './machines/attach_command.ts';
import { serve } from './machines/background.ts';
import { addMachines, isMachine, noMachineOrFile, qmpSocketOf } from './machines/commands.ts';
import { attachMachine } from './machines/connection.ts';
import { isStarted, starter, startInBackground } from './machines/starter.ts';
import { MachineArgument } from './named.ts';
import { play } from './play_command.ts';
import { showPostMortem } from './post_mortem_command.ts';
import { runQmp } from './qmp_command.ts';
import { runRepl } from './repl_run.ts';
import { run } from './run.ts';
import { onOption, RUN_DEFAULTS, type RunOptions } from './run_options.ts';
import { checkScript } from './script_file.ts';
import { setUp } from './setup.ts';
import { tour } from './tour.ts';
import { START_MACHINE, type WorkstationOptions, workstation } from './workstation.ts';

// No default, which the help would show: RUN_DEFAULTS has it.
const collect = (value: string, before: string[] = []) => [...before, value];

const EXAMPLES = `
Examples:
  nemu run                                   a shell in the default guest
  nemu run -- uname -a                       one command in a guest; its output and status are nemu's
  nemu run --cpus 4 --memory 2G -- nproc
  nemu run ./bzImage --append nokaslr        your own kernel with our initramfs
  nemu run vmlinux --initrd root.cpio --append 'console=ttyS0'
  nemu run --on lab -- dmesg
  nemu run --dry-run --cpus 4 >machine.yaml; nemu run --config machine.yaml
  echo hello | nemu run -- tr a-z A-Z
`;

const REPL_EXAMPLES = `
Examples:
  nemu repl
  nemu repl -e 'info pci'
  nemu repl work -e 'cpu add'               a machine in the background: it goes on afterwards
  nemu run --cpus 2 -e "(await vm.sh('nproc')).output"
  echo 'await vm.dmesg(5)' | nemu repl
`;

const STATUSES = `
Exit status:
${EXIT_TEXT.map(([status, text]) => `  ${String(status).padStart(3)}  ${text}`).join('\n')}
  With a command after --, its own status.
`;

/** The command line: every command, option and example. Errors are thrown, exit statuses set. */
export function program(): Command {
  const nemu = new Command('nemu')
    .description('Boots kernels under KVM, in this process.')
    .version('0.1.0', '-V, --version')
    .showSuggestionAfterError()
    .showHelpAfterError('(add --help for what there is)')
    .exitOverride()
    .configureHelp({ sortSubcommands: false })
    .addHelpText('after', STATUSES);

  addRun(nemu);
  addServe(nemu);
  addMachines(nemu);

  nemu
    .command('start', { hidden: true })
    .description('what npm start does: the workstation in a terminal, a short tour elsewhere')
    .addOption(onOption())
    .action(async ({ on }) => {
      process.exitCode =
        process.stdin.isTTY && process.stdout.isTTY
          ? await workstation(undefined, { ...RUN_DEFAULTS, ...START_MACHINE, on })
          : await tour(on);
    });

  nemu
    .command('doctor')
    .description('runs the probe guest, and says what is missing here and what mends it')
    .option('--json', 'print the report as JSON')
    .action(async ({ json }) => {
      const report = await examine();
      process.stdout.write(json ? `${JSON.stringify(report, null, 2)}\n` : formatReport(report));
      process.exitCode = report.place === 'none' ? EXIT.HOST : EXIT.OK;
    });

  addWorkstation(nemu);
  addRepl(nemu);
  addQmp(nemu);
  addGuest(nemu);
  addLab(nemu);
  addImage(nemu);

  nemu
    .command('completion')
    .description('prints a completion script: source it in your shell')
    .argument('<shell>', `one of ${SHELLS.join(', ')}`)
    .action((shell: string) => {
      if (!(SHELLS as readonly string[]).includes(shell)) {
        throw new NemuError('USAGE', `There is no completion for "${shell}".`, {
          hint: `It can be ${SHELLS.join(', ')}.`,
        });
      }
      process.stdout.write(completionScript(shell as Shell, nemu));
    });

  nemu
    .command('post-mortem')
    .description('shows what a crashed engine left')
    .argument('<file>')
    .option('--signal <number>', 'signal that ended the engine')
    .action((file: string, { signal }) => showPostMortem(file, signal === undefined ? undefined : Number(signal)));

  nemu
    .command('setup', { hidden: true })
    .argument('<task>', 'start or test')
    .action(async (task: string) => setUp(task === 'test' ? 'test' : 'start'));

  return nemu;
}

const QMP_HELP = "serves the machine by QEMU's protocol at a unix socket, to this user alone";
const GDB_HELP = 'waits there for gdb (target remote); with ,wait the machine begins when gdb says continue';
const GDB_FLAGS = '--gdb <[host:]port|unix:path[,wait]>';
const KERNEL_HELP = 'bzImage, ELF64 or Multiboot file, or a name from `nemu guest list`';

/** Options that say what a machine is. */
function machineOptions(command: Command): Command {
  return command
    .addOption(onOption())
    .option('--config <file>', 'machine description in YAML or JSON, as --dry-run prints it; options here go before it')
    .addOption(new Option('--machine <type>', 'board: q35, pc (i440FX), or minimal without PCI').choices(MACHINE_TYPES))
    .option('--initrd <file>', 'initial ramdisk; several are put behind each other', collect)
    .option('--append <string>', 'more for the kernel command line (all of it, with --initrd)')
    .option('--cpus <n|key=value,…>', 'vCPUs: 4, 2,max=8 with room for more, or sockets=2,cores=4,threads=2')
    .option(
      '--memory <size|key=value,…>',
      'RAM: 2G, 512M,max=8G,slots=8 with room for more, or size=,backend=anonymous|memfd|file,path=,share=,hugepages=2M|1G,thp=,prealloc=,lock=,host-nodes=0+1,policy=',
    )
    .option('--dimm <size[,key=value…]>', 'adds memory in a slot, which can go: id=,node=,backend=,path=', collect)
    .option(
      '--nvdimm <file[,key=value…]>',
      'adds persistent memory on a file: size=256M,label-size=128K,readonly=,share=,node=,id=',
      collect,
    )
    .addOption(
      new Option('--nvdimm-persistence <what>', 'what the host keeps of unflushed data when its power fails').choices(
        nvdimmPersistenceSchema.options,
      ),
    )
    .option(
      '--numa <what,key=value,…>',
      'NUMA: node,cpus=0-7,memory=1G,nodeid=,host-nodes=; dist,src=0,dst=1,val=21; hmat-lb,…; hmat-cache,…',
      collect,
    )
    .option('--pin <list>', 'host CPUs for each vCPU: 0,1,2-3')
    .option('--name <name>', 'name of the machine: other terminals join it by that, and what it leaves is kept')
    .option('--serial <port[,flow=drop|wait]>', 'adds a 16550A: com1 to com4', collect)
    .option('--disk <file[,key=value…]>', 'adds a disk: a raw or qcow2 image, or a block device', collect)
    .option('--root <image>', "the guest's system is on this disk, vda: a file, or an image of `nemu guest build`")
    .option('--net <user|tap|none[,key=value…]>', 'adds a network card', collect)
    .option('--device <type[,key=value…]>', 'adds a device; `--device help` lists them', collect)
    .option('--pcie <n|key=value,…>', 'hot-plug ports of q35: 4, or root-ports=4,buses=6 with room for switches')
    .option('--rng', 'adds an entropy device')
    .option('--fw-cfg <name=…,string=…|file=…>', 'adds a fw_cfg file', collect)
    .option('--debug-exit', 'adds isa-debug-exit at port 0xf4')
    .option('--i8042', 'adds a keyboard controller')
    .option('--hpet', 'adds a high precision event timer')
    .option('--no-rtc', 'leaves the CMOS clock out')
    .option('--no-pvpanic', 'leaves the panic device out')
    .option('--no-reboot', 'ends when the guest resets');
}

function addRun(nemu: Command): void {
  const command = nemu
    .command('run')
    .description('boots a kernel: with this terminal on its console, or a command in it')
    .argument('[kernel]', KERNEL_HELP)
    .argument('[command...]', 'after --: runs in the guest as root')
    .passThroughOptions(false);
  machineOptions(command)
    .option('--control <socket>', 'serves the running machine at a unix socket, to this user alone')
    .option('--qmp <socket>', QMP_HELP)
    .option(GDB_FLAGS, GDB_HELP)
    .option('-s', '--gdb 1234')
    .option('--log <file>', "writes the console's output to a file too")
    .option('--record <file>', "records the console's output as an asciicast: nemu play shows it")
    .option('-d, --detach', 'has the machine in the background, by its name: nemu attach, console, ps, stop and so on')
    .option('--timeout <time>', 'ends after this long (90s, 5m) with status 71')
    .option('--json [fd]', 'writes one event a line as JSON to a file descriptor (2)')
    .option('--dry-run', 'prints the machine description and ends')
    .option(
      '-e, --eval <code>',
      'runs code with the machine as `vm` when the guest is up, prints its value, powers off',
    )
    .option('--script <file>', 'the same with a JavaScript or TypeScript module')
    .option('--prefix <key>', 'key before the console commands', '^A')
    .option('-v, --verbose', "shows the kernel's console of a command's guest, and guest faults")
    .addHelpText('after', EXAMPLES)
    .action(async (kernel: string | undefined, command: string[], given: Partial<RunOptions>, self: Command) => {
      const options = { ...RUN_DEFAULTS, ...given };
      const { first, rest } = splitCommand(kernel, command, self);
      const asked = options.device.find((text) => text === 'help' || text.endsWith(',help'));
      if (asked !== undefined) {
        process.stdout.write(`${deviceHelp(asked === 'help' ? undefined : asked.slice(0, -',help'.length))}\n`);
        return;
      }
      const { eval: code, script, detach } = options;
      if (detach && !options.dryRun) {
        if (code !== undefined || script !== undefined) {
          throw new NemuError(
            'USAGE',
            '--eval and --script need the machine in this process, and --detach gives it another.',
            {
              hint: 'Start it with -d, then: nemu repl NAME -e CODE',
            },
          );
        }
        if (options.json !== undefined) {
          throw new NemuError(
            'USAGE',
            '--json writes to a descriptor of this process, and --detach gives the machine another.',
            {
              hint: 'Start it with -d, then: nemu events NAME --json --follow',
            },
          );
        }
        process.exitCode = isStarted() ? await serve(first, rest, options, starter()) : await startInBackground();
        return;
      }
      if (code === undefined && script === undefined) {
        process.exitCode = await run(first, rest, options);
        return;
      }
      if (rest.length > 0 || (code !== undefined && script !== undefined)) {
        throw new NemuError('USAGE', 'Of --eval, --script and a command after -- there can be one.');
      }
      if (script !== undefined) await checkScript(script);
      const task = { ...(code !== undefined && { eval: code }), ...(script !== undefined && { script }) };
      process.exitCode = await runRepl(first, task, options);
    });
}

const SERVE_EXAMPLES = `
Examples:
  nemu serve --name work            until the guest powers off, or Ctrl-c
  nemu run -d --name work           the same in the background
  nemu attach work
`;

function addServe(nemu: Command): void {
  const command = nemu
    .command('serve')
    .description('boots a kernel and serves the machine by its name, with no terminal of its own')
    .argument('[kernel]', KERNEL_HELP)
    .argument('[command...]', 'after --: runs in the guest as root')
    .passThroughOptions(false);
  machineOptions(command)
    .option('--control <socket>', 'serves it at this unix socket too')
    .option('--qmp <socket>', QMP_HELP)
    .option(GDB_FLAGS, GDB_HELP)
    .option('-s', '--gdb 1234')
    .option('--log <file>', "writes the console's output to this file too")
    .option('--record <file>', "records the console's output as an asciicast: nemu play shows it")
    .option('--timeout <time>', 'ends after this long (90s, 5m) with status 71')
    .option('--json [fd]', 'writes one event a line as JSON to a file descriptor (2)')
    .addHelpText('after', SERVE_EXAMPLES)
    .action(async (kernel: string | undefined, command: string[], options: RunOptions, self: Command) => {
      const { first, rest } = splitCommand(kernel, command, self);
      process.exitCode = await serve(first, rest, { ...RUN_DEFAULTS, ...options }, undefined);
    });

  nemu
    .command('play')
    .description('shows a recording of a console at its pace')
    .argument('<file>', 'asciicast v2, as `nemu run --record` and `nemu console --record` make it')
    .option('--speed <factor>', '2 is twice as fast', '1')
    .option('--idle-limit <seconds>', 'the longest pause')
    .addHelpText(
      'after',
      '\nExamples:\n  nemu run --record boot.cast\n  nemu play boot.cast --speed 2 --idle-limit 1\n',
    )
    .action(async (file: string, options: { speed: string; idleLimit?: string }) => {
      process.exitCode = await play(file, options);
    });
}

function addWorkstation(nemu: Command): void {
  const command = nemu
    .command('workstation')
    .alias('ui')
    .description('boots a kernel with the workstation around it: vCPUs, PCI, memory, consoles and a REPL')
    .argument('[kernel]', KERNEL_HELP);
  machineOptions(command)
    .option('--qmp <socket>', QMP_HELP)
    .option(GDB_FLAGS, GDB_HELP)
    .option('-s', '--gdb 1234')
    .option('--log <file>', "writes the console's output to a file too")
    .option('--record <file>', "records the console's output as an asciicast: nemu play shows it")
    .option('--readonly', 'nothing can be changed or typed')
    .addOption(new Option('--theme <name>', 'colours; NO_COLOR is heeded').choices(THEMES))
    .addOption(new Option('--graphs <glyphs>', 'what graphs are drawn with').choices(GLYPHS))
    .option('--no-mouse', 'leaves the mouse to the terminal')
    .action(async (kernel: string | undefined, options: WorkstationOptions) => {
      process.exitCode = await workstation(kernel, { ...RUN_DEFAULTS, ...options });
    });
}

function addRepl(nemu: Command): void {
  const command = nemu
    .command('repl')
    .description(
      'a REPL on a machine in the background, or on a guest that it boots; code may come from -e, a file or standard input too',
    )
    .addArgument(new MachineArgument('[name]', 'a machine in the background; a guest is booted without one'))
    .argument('[file]', 'JavaScript or TypeScript module');
  machineOptions(command)
    .option('-e, --eval <code>', 'runs code, prints its value')
    .option('--json [fd]', 'values as JSON, and one event a line to a file descriptor (2)')
    .option('-v, --verbose', "shows the kernel's console")
    .addHelpText('after', REPL_EXAMPLES)
    .action(async (first: string | undefined, second: string | undefined, { eval: code, ...options }: RunOptions) => {
      const machine = first !== undefined && isMachine(first) ? first : undefined;
      if (machine === undefined && second !== undefined) throw new NemuError('USAGE', `No machine ${first} runs.`);
      const file = machine === undefined ? first : second;
      if (machine === undefined && first !== undefined && !existsSync(first)) throw noMachineOrFile(first);
      if (file !== undefined) await checkScript(file);
      const task = { ...(code !== undefined && { eval: code }), ...(file !== undefined && { script: file }) };
      if (machine !== undefined) {
        const attached = await attachMachine(machine);
        try {
          process.exitCode = await runAttachedRepl(attached, task, options.json);
        } finally {
          attached.close();
        }
        return;
      }
      process.exitCode = await runRepl(undefined, task, { ...RUN_DEFAULTS, ...options });
    });
}

const QMP_EXAMPLES = `
Examples:
  nemu run --qmp /tmp/qmp.sock
  nemu qmp /tmp/qmp.sock                       a shell; Tab completes
  nemu qmp work query-status                   a machine in the background, by its name
  nemu qmp /tmp/qmp.sock query-status
  nemu qmp /tmp/qmp.sock object-add qom-type=memory-backend-ram id=m0 size=134217728
  nemu qmp /tmp/qmp.sock device_add driver=pc-dimm id=d0 memdev=m0
`;

function addQmp(nemu: Command): void {
  nemu
    .command('qmp')
    .description("speaks QEMU's protocol to a running machine, of NEMU or of QEMU: one command, or a shell")
    .addArgument(new MachineArgument('<machine>', 'name of a machine in the background, or a socket (nemu run --qmp)'))
    .argument('[command...]', 'a command and its arguments as key=value; a shell without')
    .addHelpText('after', QMP_EXAMPLES)
    .action(async (machine: string, words: string[]) => {
      process.exitCode = await runQmp(qmpSocketOf(machine), words);
    });
}

/** Words before `--` are the kernel, those after it the guest's command. */
function splitCommand(
  kernel: string | undefined,
  command: string[],
  self: Command,
): { first: string | undefined; rest: string[] } {
  const raw = (self.parent as Command & { rawArgs: string[] }).rawArgs;
  const dashes = raw.indexOf('--');
  if (dashes < 0) {
    if (command.length > 0) {
      throw new NemuError('USAGE', `There is more than one kernel: ${[kernel, ...command].join(' ')}.`, {
        hint: 'A command for the guest stands after --, for example: nemu run -- uname -a',
      });
    }
    return { first: kernel, rest: [] };
  }
  const after = raw.slice(dashes + 1);
  const words = [kernel, ...command].filter((word) => word !== undefined);
  const before = words.slice(0, words.length - after.length);
  if (before.length > 1) throw new NemuError('USAGE', `There is more than one kernel: ${before.join(' ')}.`);
  return { first: before[0], rest: after };
}

function addLab(nemu: Command): void {
  const lab = nemu.command('lab').description('an emulated host with KVM in it, for machines without');
  lab.command('build').description('makes the saved lab that runs start from').action(labBuild);
  lab
    .command('shell')
    .description('a root shell in a lab of its own')
    .action(async () => {
      process.exitCode = await labShell();
    });
  lab
    .command('exec')
    .description("runs a command in a lab, with this machine's files")
    .argument('<command...>', 'after --')
    .action(async (command: string[]) => {
      process.exitCode = await labExec(command);
    });
  lab.command('list').description('lists saved labs and what they take').option('--json', 'print JSON').action(labList);
  lab.command('rm').description('removes the saved labs').action(labRemove);
}
