/** Arguments and options that name something that is there already: shells complete them. */
import { Argument, Option } from 'commander';

/** A machine in the background. */
export class MachineArgument extends Argument {}
export class MachineOption extends Option {}
/** A kernel or a root image. */
export class GuestArgument extends Argument {}
