import type { PciFunctionReport, VirtioReport } from '../../client/machine_client.ts';
import { ConfigView } from '../../repl/pci_config.ts';
import type { MachineModel } from '../model.ts';
import { type Line, line, type Span, type Style, span, widthOf } from '../style.ts';
import { compactBytes, hex, type PaneContent, type PaneContext, type Row, rowWithParts, stageOf } from './pane.ts';

/** The PCI tree, or the virtio devices in memory of a machine without PCI. */
export function pciPane({ model, width }: PaneContext): PaneContent {
  const { devices } = model;
  if (!devices) return { title: 'PCI', rows: [{ line: line('Waiting for the machine.', 'dim') }] };
  if (devices.pci.length === 0) {
    const rows = devices.mmio.map((each) => ({
      key: each.name,
      line: [span(`${hex(each.base)} `, 'dim'), span(each.name), span(' '), driver(each)],
    }));
    return { title: `virtio-mmio · ${rows.length}`, rows };
  }
  return { title: `PCI · ${devices.pci.length} functions`, rows: tree(devices.pci, model, width) };
}

/** Functions below the bridges that they are behind. */
function tree(functions: readonly PciFunctionReport[], model: MachineModel, width: number): Row[] {
  const children = new Map<string | undefined, PciFunctionReport[]>();
  for (const each of functions) children.set(each.bridge, [...(children.get(each.bridge) ?? []), each]);
  const found: { readonly each: PciFunctionReport; readonly branch: string }[] = [];
  const walk = (bridge: string | undefined, indent: string) => {
    const list = children.get(bridge) ?? [];
    for (const [index, each] of list.entries()) {
      const last = index === list.length - 1;
      const branch = bridge === undefined ? '' : indent + (last ? '└ ' : '├ ');
      found.push({ each, branch });
      walk(each.name, bridge === undefined ? '' : indent + (last ? '  ' : '│ '));
    }
  };
  walk(undefined, '');
  const headWidth = Math.max(...found.map(({ each, branch }) => widthOf(headOf(each, branch))));
  return found.map(({ each, branch }) => functionRow(each, branch, headWidth, stageOf(model, each.name), width));
}

const headOf = ({ address, name }: PciFunctionReport, branch: string): string => `${branch}${address} ${name}`;

function functionRow(
  each: PciFunctionReport,
  branch: string,
  headWidth: number,
  stage: readonly Span[],
  width: number,
): Row {
  const view = new ConfigView(each.config);
  const slot = view.slot?.split(', ') ?? [];
  const slotStyle = slot.includes('indicator blinking') ? 'warn' : slot[0]?.includes('occupied') ? 'good' : 'dim';
  const vectors = each.msix?.filter(({ masked, address }) => !masked && address !== 0).length;
  const head: Line = [
    span(`${branch}${each.address} `, 'dim'),
    span(each.name, 'bold'),
    span(' '.repeat(headWidth - widthOf(headOf(each, branch)))),
  ];
  const parts = [
    ...stage,
    each.virtio ? driver(each.virtio) : span(view.className, 'dim'),
    ...slot.map((part, index) => span(index < slot.length - 1 ? `${part},` : part, slotStyle)),
    ...(each.msix ? [span(`MSI-X ${vectors}/${each.msix.length}`, 'dim')] : []),
    ...each.bars
      .filter(({ base }) => base !== undefined)
      .map(({ base, size, kind }) =>
        span(`${kind === 'io' ? 'io ' : ''}${hex(base as number)}+${compactBytes(size)}`, 'dim'),
      ),
  ];
  return rowWithParts(each.name, head, parts, width);
}

/** How far a driver got with its device (virtio 1.2, section 2.1). */
function driver({ status }: VirtioReport) {
  const [text, style]: [string, Style] =
    status & 0x80
      ? ['driver failed', 'bad']
      : status & 0x40
        ? ['needs reset', 'bad']
        : status & 4
          ? ['driver ready', 'good']
          : status === 0
            ? ['no driver', 'dim']
            : ['driver starting', 'warn'];
  return span(text, style);
}
