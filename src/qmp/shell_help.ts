/** What `help` says in the shell of `nemu qmp`. */
import { NemuError } from '../client/errors.ts';
import { didYouMean } from '../client/suggest.ts';
import { table } from '../client/text_table.ts';
import type { QmpClient } from './client.ts';
import { parseLine } from './shell.ts';

const GENERAL = [
  'A line is a command with key=value arguments or a JSON object, a message as JSON, or a command of the human monitor (info pci).',
  'Tab completes commands, arguments and their values.',
  'help COMMAND says what a command takes, help device_add DRIVER what a device takes.',
  'Ctrl-C gives the prompt back; exit or Ctrl-D leaves.',
].join('\n');

/** QEMU has hundreds of devices: with their properties they would be no help. */
const MOST_WITH_PROPERTIES = 40;

/** @throws NemuError USAGE */
export async function shellHelp(client: QmpClient, command?: string, driver?: string): Promise<string> {
  if (command === undefined) return GENERAL;
  const schema = await client.schema();
  parseLine([command], schema);
  if (command === 'device_add' && driver !== undefined) return helpOnDriver(client, driver);
  const rows = schema.argumentsOf(command).map(({ name, type, optional }) => {
    const values = schema.valuesOf(type).slice(0, 12).join('|');
    return `  ${optional ? `[${name}=]` : `${name}=`}${values ? ` ${values}` : ''}`;
  });
  return [command, ...rows, ...(command === 'device_add' ? await driversOf(client) : [])].join('\n');
}

async function driversOf(client: QmpClient): Promise<string[]> {
  const drivers = await client.drivers();
  if (drivers.length > MOST_WITH_PROPERTIES) return [`drivers: ${drivers.join(', ')}`];
  const rows = await Promise.all(
    drivers.map(async (name) => {
      const properties = await client.propertiesOf(name);
      return [`  ${name}`, properties.map((each) => `${each.name}=`).join(' ')];
    }),
  );
  return rows.length === 0
    ? []
    : [table(['  driver', 'properties'], rows), 'help device_add DRIVER says more of each.'];
}

async function helpOnDriver(client: QmpClient, driver: string): Promise<string> {
  const properties = await client.propertiesOf(driver);
  if (properties.length > 0) {
    const rows = properties.map(({ name, type, description = '' }) => [`  ${name}=`, type, description]);
    return [`device_add driver=${driver} [id=]`, table(['  property', 'type', 'what it is'], rows)].join('\n');
  }
  const drivers = await client.drivers();
  const near = didYouMean(driver, drivers);
  throw new NemuError('USAGE', `This server has no driver "${driver}" whose properties it tells.`, {
    hint: near ? `Did you mean ${near}?` : `There are ${drivers.join(', ')}.`,
  });
}
