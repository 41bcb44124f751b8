/** The workstation's screen. Each box is one text of painted lines: Ink's cost follows its nodes and its cells. */
import { Box, Text, useApp, useWindowSize } from 'ink';
import { memo, useEffect, useSyncExternalStore } from 'react';
import { type Frame, frameOf } from './frame.ts';
import type { Station } from './station.ts';
import { paint } from './style.ts';

export interface AppProps {
  readonly station: Station;
  /** Counts what changed; a new value is a new frame. */
  readonly version: { readonly subscribe: (listener: () => void) => () => void; readonly get: () => number };
  /** Told of each frame, to know what is under the mouse. */
  readonly onFrame: (frame: Frame) => void;
  /** Told how to hand the terminal over. */
  readonly onReady: (suspend: ReturnType<typeof useApp>['suspendTerminal']) => void;
}

const Painted = memo(({ text }: { readonly text: string }) => <Text wrap="truncate-end">{text}</Text>);

export function App({ station, version, onFrame, onReady }: AppProps) {
  useSyncExternalStore(version.subscribe, version.get);
  const { columns, rows } = useWindowSize();
  const { suspendTerminal } = useApp();
  useEffect(() => onReady(suspendTerminal), [onReady, suspendTerminal]);
  const frame = frameOf(station, columns, rows);
  onFrame(frame);
  const { theme } = station;
  if (frame.tooSmall) return <Painted text={frame.tooSmall.join('\n')} />;
  const { overlay } = frame;
  return (
    <Box flexDirection="column" width={columns} height={rows - 1}>
      <Painted text={paint(frame.header, theme)} />
      <Box>
        {frame.columns.map((boxes) => (
          <Box key={boxes[0]?.rect.left} flexDirection="column" flexShrink={0}>
            {boxes.map(({ rect, lines }) => (
              <Painted key={rect.top} text={lines.map((line) => paint(line, theme)).join('\n')} />
            ))}
          </Box>
        ))}
      </Box>
      <Painted text={paint(frame.footer, theme)} />
      {overlay && (
        <Box position="absolute" top={overlay.rect.top} left={overlay.rect.left}>
          <Painted text={overlay.lines.map((line) => paint(line, theme)).join('\n')} />
        </Box>
      )}
    </Box>
  );
}
