/** QEMU as the judge of our QMP: its schema over ours, and one transcript to both. */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { isDeepStrictEqual } from 'node:util';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { COMMANDS } from '../../src/qmp/commands/index.ts';
import { EVENTS } from '../../src/qmp/events.ts';
import { introspect, type SchemaInfo } from '../../src/qmp/introspect.ts';
import { runNemu } from '../support/cli.ts';
import { FakeMachine, type Message, QmpPeer, qmpServer } from '../support/qmp.ts';

const QEMU = 'qemu-system-x86_64';
const hasQemu = (() => {
  try {
    execFileSync(QEMU, ['--version'], { stdio: 'ignore' });
    return true;
  } catch {
    return false;
  }
})();

/** Where our shape of something need not be QEMU's, and why. */
const EXCEPTIONS: Readonly<Record<string, string>> = {
  // Gone from QEMU since 6.0; old clients ask for it.
  'query-events': 'no such command',
};

type Object = Extract<SchemaInfo, { 'meta-type': 'object' }>;

class Comparison {
  readonly problems: string[] = [];
  readonly #ours: ReadonlyMap<string, SchemaInfo>;
  readonly #theirs: ReadonlyMap<string, SchemaInfo>;
  readonly #seen = new Set<string>();

  constructor(ours: readonly SchemaInfo[], theirs: readonly SchemaInfo[]) {
    this.#ours = new Map(ours.map((info) => [info.name, info]));
    this.#theirs = new Map(theirs.map((info) => [info.name, info]));
  }

  run(): void {
    for (const info of this.#ours.values()) {
      if (info['meta-type'] !== 'command' && info['meta-type'] !== 'event') continue;
      const theirs = this.#theirs.get(info.name);
      if (theirs?.['meta-type'] !== info['meta-type']) this.#problem(info.name, `no such ${info['meta-type']}`);
      else if (info['meta-type'] === 'event') {
        this.#type(info.name, info['arg-type'], (theirs as typeof info)['arg-type'], 'out');
      } else {
        this.#type(info.name, info['arg-type'], (theirs as typeof info)['arg-type'], 'in');
        this.#type(info.name, info['ret-type'], (theirs as typeof info)['ret-type'], 'out');
      }
    }
  }

  #problem(where: string, what: string): void {
    if (EXCEPTIONS[where] !== what) this.problems.push(`${where}: ${what}`);
  }

  /** What goes in must be something that QEMU takes; what comes out, something that its clients understand. */
  #type(where: string, ourName: string, theirName: string, way: 'in' | 'out'): void {
    const key = `${ourName} ${theirName} ${way}`;
    if (this.#seen.has(key)) return;
    this.#seen.add(key);
    const [ours, theirs] = [this.#ours.get(ourName), this.#theirs.get(theirName)];
    if (!ours || !theirs) this.#problem(where, `type ${ourName} or ${theirName} is missing`);
    else if (ours['meta-type'] !== theirs['meta-type']) {
      this.#problem(where, `${ours['meta-type']}, not ${theirs['meta-type']}`);
    } else if (ours['meta-type'] === 'builtin') {
      if (ours.name !== theirs.name) this.#problem(where, `${ours.name}, not ${theirs.name}`);
    } else if (ours['meta-type'] === 'array') {
      this.#type(`${where}[]`, ours['element-type'], (theirs as typeof ours)['element-type'], way);
    } else if (ours['meta-type'] === 'enum') {
      const more = ours.values.filter((value) => !(theirs as typeof ours).values.includes(value));
      if (more.length > 0) this.#problem(where, `unknown values ${more.join(', ')}`);
    } else if (ours['meta-type'] === 'object') this.#object(where, ours, theirs as Object, way);
  }

  #object(where: string, ours: Object, theirs: Object, way: 'in' | 'out', theirBase: Object['members'] = []): void {
    const known = [...theirBase, ...theirs.members];
    for (const member of ours.members) {
      const other = known.find(({ name }) => name === member.name);
      const at = `${where}.${member.name}`;
      if (!other) this.#problem(at, 'no such member');
      else {
        if (way === 'in' && !('default' in member) && 'default' in other) this.#problem(at, 'must be there here alone');
        this.#type(at, member.type, other.type, way);
      }
    }
    for (const other of theirs.members) {
      const missing = !ours.members.some(
        ({ name, ...rest }) => name === other.name && (way === 'in' || !('default' in rest)),
      );
      if (missing && !('default' in other)) this.#problem(`${where}.${other.name}`, 'is not always there');
    }
    for (const { case: name, type } of ours.variants ?? []) {
      const [mine, branch] = [this.#ours.get(type), theirs.variants?.find((each) => each.case === name)];
      const other = branch && this.#theirs.get(branch.type);
      if (mine?.['meta-type'] !== 'object' || other?.['meta-type'] !== 'object')
        this.#problem(`${where}:${name}`, 'no such branch');
      else this.#object(`${where}:${name}`, mine, other, way, known);
    }
  }
}

/** Sent as they are, one after the other: what QEMU says to them is what we say. */
const SAME = [
  '{"execute":"query-version"}',
  '{"execute":"qmp_capabilities","arguments":{"enable":["oob"]},"id":1}',
  '{"execute":"qmp_capabilities","id":{"a":[1,2.5,null]}}',
  '{"execute":"foo","id":2}',
  "{'execute':'query-kvm','id':'single'}",
  '{"execute":"query-status","arguments":{"x":1}}',
  '{"execute":"query-status","foo":1}',
  '{"execute":"query-status","arguments":[]}',
  '{"execute":"query-status","execute":"query-name"}',
  '{"exec-oob":"query-name","id":"oob"}',
  '{"exec-oob":"yank","arguments":{"instances":[]},"id":18446744073709551615}',
  '{"exec-oob":"nope","id":-9223372036854775808}',
  '{"foo":1,"id":9}',
  '{}',
  '[1,2]',
  '"abc" ',
  'null ',
  '{"execute":1}',
  '{"execute":"device_add"}',
  '{"execute":"device_add","arguments":{"driver":"foo"}}',
  '{"execute":"device_del"}',
  '{"execute":"device_del","arguments":{"id":"nope"}}',
  '{"execute":"device_del","arguments":{"id":5}}',
  '{"execute":"query-status",}',
  '{"execute": xyz}',
  '{1:2}',
  '{"a" 1}',
  '{"a":1 "b":2}',
  '[1 2]',
  '{"a":1,"a":2}',
  '}',
  '@\n',
  '"\\q" ',
  '{"a":]',
  '{]',
  '{"a":{"b":1]}',
  '[[}',
  ']]',
  '"\\ud800" ',
  '"\\u12zz" ',
  '"\\uffff" ',
  '"\\ufdd0" ',
  '"\ufffe" ',
  '{"execute":"foo","id":"a\\u0000b"}',
  '{"execute":"foo","id":1.}',
  '{"execute":"foo","id":01}',
  '{"execute":"foo","id":1e}',
  '{"execute":"foo","id":[1.0,1e3,0.1,-0]}',
  '/* c */ {"execute":"foo"}',
  'JUNK {"execute":"foo"}',
  '{"execute":"calc-dirty-rate","arguments":{"calc-time":1.0}}',
  '{"execute":"calc-dirty-rate","arguments":{"calc-time":1,"sample-pages":1}}',
  '{"execute":"pmemsave","arguments":{"val":9007199254740993,"size":1,"filename":"/nope/x"}}',
  '{"execute":"memsave","arguments":{"val":18446744073709551615,"size":1,"filename":"/nope/x"}}',
  '{"execute":"pmemsave","arguments":{"val":99999999999999999999,"size":1,"filename":"/nope/x"}}',
  '{"execute":"balloon","arguments":{"value":0}}',
  '{"execute":"query-balloon"}',
  '{"execute":"device_add","arguments":{"driver":"foo","id":"1bad"}}',
  '{"execute":"device_add","arguments":{"driver":"pci-device"}}',
  '{"execute":"device_add","arguments":{"driver":"virtio-rng-pci","bus":"nope","bogus":1}}',
  '{"execute":"device_del","arguments":{"id":"/machine"}}',
  '{"execute":"blockdev-add","arguments":{"driver":"file","node-name":"1bad","filename":"/dev/null"}}',
  `{"execute":"blockdev-add","arguments":{"driver":"file","node-name":"${'n'.repeat(41)}","filename":"/dev/null"}}`,
  '{"execute":"blockdev-add","arguments":{"driver":"raw","node-name":"d0","file":5}}',
  '{"execute":"blockdev-add","arguments":{"driver":"raw","node-name":"d0","file":"nope"}}',
  '{"execute":"netdev_add","arguments":{"type":"user","id":"u0","net":"bad"}}',
  '{"execute":"netdev_add","arguments":{"type":"user","id":"u0","net":"10.0.2.0/33"}}',
  '{"execute":"netdev_add","arguments":{"type":"user","id":"u0","hostfwd":[{"str":"tcp::99999-:22"}]}}',
  '{"execute":"netdev_add","arguments":{"type":"user","id":"u0","hostfwd":[{"str":"icmp::9999-:22"}]}}',
  '{"execute":"netdev_add","arguments":{"type":"user","id":"u0","hostfwd":[{"str":"tcp::9999-:0"}]}}',
  '{"execute":"netdev_add","arguments":{"type":"tap","id":"u0","queues":"2"}}',
  '{"execute":"object-add","arguments":{"qom-type":"iothread","id":"io","poll-max-ns":-1}}',
  '{"execute":"object-add","arguments":{"qom-type":"iothread","id":"io","poll-max-ns":1000}}',
  '{"execute":"qom-get","arguments":{"path":"/objects/io","property":"poll-max-ns"}}',
  '{"execute":"qom-get","arguments":{"path":"io","property":"type"}}',
  '{"execute":"qom-set","arguments":{"path":"/objects/io","property":"poll-max-ns","value":500}}',
  '{"execute":"qom-set","arguments":{"path":"/objects/io","property":"poll-max-ns","value":"x"}}',
  '{"execute":"qom-get","arguments":{"path":"objects/io","property":"poll-max-ns"}}',
  '{"execute":"object-del","arguments":{"id":"io"}}',
  '{"execute":"object-add","arguments":{"qom-type":"memory-backend-ram","id":"m1","size":"4096"}}',
  '{"execute":"object-add","arguments":{"qom-type":"memory-backend-ram","id":"m1","size":4096.0}}',
  '{"execute":"object-add","arguments":{"qom-type":"memory-backend-ram","id":"m1","size":4096,"prealloc-threads":4294967296}}',
  '{"execute":"chardev-add","arguments":{"id":"rb","backend":{"type":"ringbuf","data":{"size":16}}}}',
  '{"execute":"ringbuf-write","arguments":{"device":"rb","data":"@@@","format":"base64"}}',
  '{"execute":"ringbuf-write","arguments":{"device":"rb","data":"YWJj","format":"base64"}}',
  '{"execute":"ringbuf-read","arguments":{"device":"rb","size":10}}',
  '{"execute":"chardev-remove","arguments":{"id":"rb"}}',
  `{"execute":"chardev-add","arguments":{"id":"s1","backend":{"type":"socket","data":{"addr":{"type":"unix","data":{"path":"/tmp/${'x'.repeat(110)}"}},"wait":false}}}}`,
  '{"execute":"device-list-properties","arguments":{"typename":"virtio-rng"}}',
  '{"execute":"device-list-properties","arguments":{"typename":"memory-backend-ram"}}',
  '{"execute":"human-monitor-command","arguments":{"command-line":"info status","cpu-index":99}}',
  '{"execute":"human-monitor-command","arguments":{"command-line":"stop extra"}}',
  '{"execute":"human-monitor-command","arguments":{"command-line":"system_reset 1"}}',
  '{"execute":"memsave","arguments":{"val":"x","size":1,"filename":"a"}}',
  '{"execute":"memsave","arguments":{"val":1.5,"size":1,"filename":"a"}}',
  '{"execute":"memsave","arguments":{"val":1}}',
  '{"execute":"pmemsave","arguments":{"val":0,"size":"abc","filename":"a"}}',
  '{"execute":"balloon","arguments":{"value":"abc"}}',
  '{"execute":"qom-list","arguments":{"path":"/nope"}}',
  '{"execute":"object-add","arguments":{"qom-type":"memory-backend-ram","id":"m1"}}',
  '{"execute":"object-add","arguments":{"qom-type":"memory-backend-ram","id":"m1","size":134217728}}',
  '{"execute":"object-add","arguments":{"qom-type":"memory-backend-ram","id":"m1","size":134217728}}',
  '{"execute":"object-add","arguments":{"qom-type":"memory-backend-ram","id":"m2","size":0}}',
  '{"execute":"object-add","arguments":{"qom-type":"memory-backend-memfd","id":"m2","size":0}}',
  '{"execute":"object-add","arguments":{"qom-type":"memory-backend-ram","id":"","size":4096}}',
  '{"execute":"object-add","arguments":{"qom-type":"memory-backend-ram","id":"m2","size":4096,"prealloc-threads":0}}',
  '{"execute":"object-add","arguments":{"qom-type":"memory-backend-ram","id":"m2","size":4096,"policy":"bind"}}',
  '{"execute":"object-add","arguments":{"qom-type":"memory-backend-ram","id":"m2","size":4096,"host-nodes":[0]}}',
  '{"execute":"object-add","arguments":{"qom-type":"memory-backend-file","id":"m2","size":4096,"mem-path":"/nope/x"}}',
  '{"execute":"object-add","arguments":{"qom-type":"memory-backend-file","id":"m2","size":4096,"mem-path":""}}',
  '{"execute":"object-add","arguments":{"qom-type":"memory-backend-ram","id":"m2","size":4096,"dump":false,"merge":true,"share":true,"reserve":false}}',
  '{"execute":"object-del","arguments":{"id":"m2"}}',
  '{"execute":"object-add","arguments":{"qom-type":"rng-random","id":"r0"}}',
  '{"execute":"object-add","arguments":{"qom-type":"rng-random","id":"r1","filename":"/nope"}}',
  '{"execute":"object-add","arguments":{"qom-type":"rng-builtin","id":"r2"}}',
  '{"execute":"object-add","arguments":{"qom-type":"iothread","id":"io"}}',
  '{"execute":"object-del","arguments":{"id":"r0"}}',
  '{"execute":"object-del","arguments":{"id":"r2"}}',
  '{"execute":"object-del","arguments":{"id":"io"}}',
  '{"execute":"object-add","arguments":{"qom-type":"nope","id":"m1","size":1048576}}',
  '{"execute":"object-add","arguments":{"qom-type":"memory-backend-ram","id":"m2","size":1048576,"bogus":1}}',
  '{"execute":"object-add","arguments":{"qom-type":"memory-backend-ram","id":"m2","size":1048576,"policy":"x"}}',
  '{"execute":"object-add","arguments":{"qom-type":"memory-backend-ram","id":"1","size":1048576}}',
  '{"execute":"object-del","arguments":{"id":"m9"}}',
  '{"execute":"device_add","arguments":{"driver":"pc-dimm","id":"d1"}}',
  '{"execute":"device_add","arguments":{"driver":"pc-dimm","id":"d1","memdev":"zz"}}',
  '{"execute":"device_add","arguments":{"driver":"pc-dimm","id":"d1","memdev":"m1","bogus":1}}',
  '{"execute":"device_add","arguments":{"driver":"pc-dimm","id":"d1","memdev":"m1","slot":"abc"}}',
  '{"execute":"device_add","arguments":{"driver":"virtio-net","id":"1bad"}}',
  '{"execute":"device_add","arguments":{"driver":"pcie-root-port","id":"rp9"}}',
  '{"execute":"device_add","arguments":{"driver":"pcie-root-port","id":"rp9","bus":"pcie.0"}}',
  '{"execute":"qom-list-properties","arguments":{"typename":"nope"}}',
  '{"execute":"query-cpu-model-expansion","arguments":{"type":"full","model":{"name":"nope"}}}',
  '{"execute":"query-cpu-model-expansion","arguments":{"type":"full","model":{"name":"host","props":{"nope":true}}}}',
  '{"execute":"query-cpu-model-expansion","arguments":{"type":"x","model":{"name":"host"}}}',
  '{"execute":"query-stats","arguments":{"target":"vm"}}',
  '{"execute":"query-stats","arguments":{"target":"vcpu","vcpus":["/nope"]}}',
  '{"execute":"query-stats","arguments":{"target":"nope"}}',
  '{"execute":"query-stats-schemas"}',
  '{"execute":"query-fdsets"}',
  '{"execute":"query-display-options"}',
  '{"execute":"watchdog-set-action","arguments":{"action":"nope"}}',
  '{"execute":"watchdog-set-action","arguments":{"action":"pause"}}',
  '{"execute":"set-action","arguments":{"panic":"nope"}}',
  '{"execute":"set-action","arguments":{"panic":"shutdown","shutdown":"poweroff","reboot":"reset"}}',
  '{"execute":"object-del","arguments":{"id":"m1"}}',
  '{"execute":"query-memory-size-summary"}',
  '{"execute":"query-memory-devices"}',
  '{"execute":"human-monitor-command","arguments":{"command-line":"info status"}}',
  '{"execute":"human-monitor-command","arguments":{"command-line":"info nope"}}',
  '{"execute":"human-monitor-command","arguments":{"command-line":"nope"}}',
  '{"execute":"human-monitor-command","arguments":{"command-line":""}}',
  '{"execute":"human-monitor-command","arguments":{"command-line":"info memory_size_summary"}}',
  '{"execute":"human-monitor-command","arguments":{"command-line":"balloon"}}',
  '{"execute":"human-monitor-command","arguments":{"command-line":"balloon abc"}}',
  '{"execute":"human-monitor-command","arguments":{"command-line":"xp"}}',
  '{"execute":"human-monitor-command","arguments":{"command-line":"x /x"}}',
  '{"execute":"human-monitor-command","arguments":{"command-line":"xp /4zx 0"}}',
  '{"execute":"human-monitor-command","arguments":{"command-line":"xp 1 2"}}',
  '{"execute":"human-monitor-command","arguments":{"command-line":"x $nope"}}',
  '{"execute":"human-monitor-command","arguments":{"command-line":"set_link"}}',
  '{"execute":"human-monitor-command","arguments":{"command-line":"set_link foo"}}',
  '{"execute":"human-monitor-command","arguments":{"command-line":"set_link foo on"}}',
  '{"execute":"human-monitor-command","arguments":{"command-line":"set_link foo bar"}}',
  '{"execute":"human-monitor-command","arguments":{"command-line":"block_resize"}}',
  '{"execute":"human-monitor-command","arguments":{"command-line":"block_resize foo"}}',
  '{"execute":"human-monitor-command","arguments":{"command-line":"block_resize foo 10M"}}',
  '{"execute":"human-monitor-command","arguments":{"command-line":"block_resize foo garbage"}}',
  '{"execute":"human-monitor-command","arguments":{"command-line":"hostfwd_add"}}',
  '{"execute":"human-monitor-command","arguments":{"command-line":"hostfwd_add tcp::5555-:22"}}',
  '{"execute":"human-monitor-command","arguments":{"command-line":"hostfwd_add nope tcp::5556-:22"}}',
  '{"execute":"human-monitor-command","arguments":{"command-line":"hostfwd_remove"}}',
  '{"execute":"human-monitor-command","arguments":{"command-line":"hostfwd_remove tcp::5555"}}',
  '{"execute":"human-monitor-command","arguments":{"command-line":"object_add"}}',
  '{"execute":"human-monitor-command","arguments":{"command-line":"object_add foo,id=a"}}',
  '{"execute":"human-monitor-command","arguments":{"command-line":"object_add memory-backend-ram,size=1M"}}',
  '{"execute":"human-monitor-command","arguments":{"command-line":"object_add memory-backend-ram,id=hm,size=abc"}}',
  '{"execute":"human-monitor-command","arguments":{"command-line":"object_add memory-backend-ram,id=hm,size=1M,share=maybe"}}',
  '{"execute":"human-monitor-command","arguments":{"command-line":"object_add memory-backend-ram,id=hm,size=1M,share=on"}}',
  '{"execute":"human-monitor-command","arguments":{"command-line":"object_del"}}',
  '{"execute":"human-monitor-command","arguments":{"command-line":"object_del hm"}}',
  '{"execute":"human-monitor-command","arguments":{"command-line":"object_del hm"}}',
  '{"execute":"human-monitor-command","arguments":{"command-line":"netdev_add user"}}',
  '{"execute":"human-monitor-command","arguments":{"command-line":"netdev_add user,id=hn,restrict=on"}}',
  '{"execute":"human-monitor-command","arguments":{"command-line":"info network"}}',
  '{"execute":"human-monitor-command","arguments":{"command-line":"netdev_del"}}',
  '{"execute":"human-monitor-command","arguments":{"command-line":"netdev_del hn"}}',
  '{"execute":"human-monitor-command","arguments":{"command-line":"netdev_del hn"}}',
  '{"execute":"human-monitor-command","arguments":{"command-line":"info qom-tree /machine/peripheral"}}',
  '{"execute":"human-monitor-command","arguments":{"command-line":"info qom-tree /nope"}}',
  '{"execute":"human-monitor-command","arguments":{"command-line":"info numa"}}',
  '{"execute":"blockdev-add","arguments":{"driver":"raw","node-name":"d0"}}',
  '{"execute":"blockdev-add","arguments":{"driver":"raw","node-name":"d0","file":{"driver":"file","filename":"/nope"}}}',
  '{"execute":"blockdev-add","arguments":{"driver":"nope","node-name":"d0"}}',
  '{"execute":"blockdev-add","arguments":{"driver":"file","filename":"/dev/null"}}',
  '{"execute":"blockdev-add","arguments":{"driver":"raw","node-name":"d0","file":{"driver":"file","filename":"/dev/zero"}}}',
  `{"execute":"blockdev-add","arguments":{"driver":"qcow2","node-name":"d0","read-only":true,"file":{"driver":"file","read-only":true,"filename":"${import.meta.filename}"}}}`,
  `{"execute":"blockdev-add","arguments":{"driver":"file","node-name":"d0","read-only":true,"filename":"${import.meta.filename}","aio":"native"}}`,
  `{"execute":"blockdev-add","arguments":{"driver":"host_device","node-name":"d0","read-only":true,"filename":"${import.meta.filename}"}}`,
  '{"execute":"blockdev-add","arguments":{"driver":"file","node-name":"d0","filename":"/nope","detect-zeroes":"unmap"}}',
  '{"execute":"blockdev-del","arguments":{"node-name":"zz"}}',
  '{"execute":"block_resize","arguments":{"device":"nope","size":10}}',
  '{"execute":"block_resize","arguments":{"node-name":"nope","size":10}}',
  '{"execute":"block_resize","arguments":{"device":"a","node-name":"b","size":10}}',
  '{"execute":"block_resize","arguments":{"device":"a","size":"b"}}',
  '{"execute":"eject"}',
  '{"execute":"eject","arguments":{"device":"a","id":"b"}}',
  '{"execute":"eject","arguments":{"id":"nope","force":true}}',
  '{"execute":"blockdev-change-medium","arguments":{"id":"nope","filename":"/x"}}',
  '{"execute":"blockdev-open-tray","arguments":{"device":"nope"}}',
  '{"execute":"blockdev-close-tray","arguments":{"id":"nope"}}',
  '{"execute":"blockdev-insert-medium","arguments":{"id":"nope","node-name":"x"}}',
  '{"execute":"blockdev-remove-medium","arguments":{"id":"nope"}}',
  '{"execute":"block_set_io_throttle","arguments":{"id":"nope","bps":0,"bps_rd":0,"bps_wr":0,"iops":0,"iops_rd":0,"iops_wr":0}}',
  '{"execute":"netdev_add","arguments":{"type":"user"}}',
  '{"execute":"netdev_add","arguments":{"type":"nope","id":"n"}}',
  '{"execute":"netdev_add","arguments":{"type":"user","id":"1bad"}}',
  '{"execute":"netdev_add","arguments":{"type":"user","id":"n","ipv6":false}}',
  '{"execute":"netdev_add","arguments":{"type":"user","id":"n"}}',
  '{"execute":"netdev_del","arguments":{"id":"n"}}',
  '{"execute":"query-command-line-options","arguments":{"option":"nope"}}',
  '{"execute":"netdev_del","arguments":{"id":"x"}}',
  '{"execute":"set_link","arguments":{"name":"nope","up":true}}',
  '{"execute":"query-rx-filter"}',
  '{"execute":"query-rx-filter","arguments":{"name":"nope"}}',
  '{"execute":"netdev_add","arguments":{"type":"user","id":"n1"}}',
  '{"execute":"query-rx-filter","arguments":{"name":"n1"}}',
  '{"execute":"set_link","arguments":{"name":"n1","up":false}}',
  '{"execute":"netdev_del","arguments":{"id":"n1"}}',
  '{"execute":"chardev-add","arguments":{"id":"c0","backend":{"type":"null","data":{}}}}',
  '{"execute":"chardev-add","arguments":{"id":"c0","backend":{"type":"null","data":{}}}}',
  '{"execute":"chardev-add","arguments":{"id":"c1","backend":{"type":"ringbuf","data":{"size":1000}}}}',
  '{"execute":"chardev-add","arguments":{"id":"c1","backend":{"type":"ringbuf","data":{}}}}',
  '{"execute":"chardev-add","arguments":{"id":"c2","backend":{"type":"null"}}}',
  '{"execute":"chardev-add","arguments":{"id":"c2","backend":{}}}',
  '{"execute":"chardev-add","arguments":{"id":"c2","backend":{"type":"nope","data":{}}}}',
  '{"execute":"chardev-add","arguments":{"id":"c3","backend":{"type":"socket","data":{"addr":{"type":"unix","data":{"path":"/nope/x"}},"server":true,"wait":false}}}}',
  '{"execute":"ringbuf-write","arguments":{"device":"c1","data":"aGVsbG8=","format":"base64"}}',
  '{"execute":"ringbuf-read","arguments":{"device":"c1","size":0}}',
  '{"execute":"ringbuf-read","arguments":{"device":"c1","size":3}}',
  '{"execute":"ringbuf-read","arguments":{"device":"c1","size":10,"format":"base64"}}',
  '{"execute":"ringbuf-read","arguments":{"device":"nope","size":3}}',
  '{"execute":"chardev-remove","arguments":{"id":"c0"}}',
  '{"execute":"chardev-remove","arguments":{"id":"c0"}}',
  '{"execute":"chardev-remove","arguments":{"id":"c1"}}',
  '{"execute":"device-list-properties","arguments":{"typename":"nope"}}',
  '{"execute":"qom-list-types","arguments":{"implements":"memory-backend-ram"}}',
  '{"execute":"query-block-jobs"}',
  '{"execute":"query-iothreads"}',
  '{"execute":"query-migrate"}',
  '{"execute":"query-uuid"}',
  '{"execute":"query-target"}',
  '{"execute":"stop","id":"s"}',
  '{"execute":"stop"}',
  '{"execute":"query-status"}',
  '{"execute":"cont"}',
  '{"execute":"query-status"}',
  '{"execute":"yank","arguments":{"instances":[]}}',
];

/** Types instead of values: answers that differ in what they say, but not in their shape. */
const SHAPED = new Set(['query-version', 'query-kvm']);

function shape(value: unknown): unknown {
  if (Array.isArray(value)) return value.length > 0 ? [shape(value[0])] : [];
  if (typeof value !== 'object' || value === null) return typeof value;
  return Object.fromEntries(Object.entries(value).map(([key, member]) => [key, shape(member)]));
}

describe.skipIf(!hasQemu)(`against ${QEMU} (skipped where it is not installed)`, () => {
  const folder = mkdtempSync(join(tmpdir(), 'nemu-qmp-'));
  let qemu: ChildProcess;
  const attach = async (): Promise<QmpPeer> => {
    for (;;) {
      const socket = connect(join(folder, 'qmp'));
      const well = await new Promise((resolve) => {
        socket.once('connect', () => resolve(true));
        socket.once('error', () => resolve(false));
      });
      if (well) return new QmpPeer(socket);
      if (qemu.exitCode !== null) throw new Error('QEMU ended.');
      await sleep(50);
    }
  };
  beforeAll(() => {
    const server = `unix:${join(folder, 'qmp')},server=on,wait=off`;
    const machine = [
      '-M',
      'q35',
      '-smp',
      '2,maxcpus=4',
      '-m',
      '512M,maxmem=4G,slots=4',
      '-nodefaults',
      '-display',
      'none',
    ];
    qemu = spawn(QEMU, [...machine, '-qmp', server], { stdio: 'ignore' });
  });
  afterAll(() => {
    qemu.kill('SIGKILL');
    rmSync(folder, { recursive: true, force: true });
  });

  test('each command and event of ours is one of its, with members and types that it has', async () => {
    const peer = await attach();
    await peer.negotiate();
    const theirs = (await peer.execute('query-qmp-schema')) as SchemaInfo[];
    peer.stream.destroy();
    const comparison = new Comparison(introspect(COMMANDS, EVENTS), theirs);
    comparison.run();
    expect(comparison.problems).toEqual([]);
  });

  test('nemu qmp speaks to it: one command, an error, and lines with its events', async () => {
    const path = join(folder, 'qmp');
    (await attach()).stream.destroy();
    const one = await runNemu(['qmp', path, 'qom-get', 'path=/machine', 'property=type']);
    expect(one).toMatchObject({ status: 0, stderr: '' });
    expect(one.stdout.toString()).toMatch(/^pc-q35-.*-machine\n$/);
    const none = await runNemu(['qmp', `unix:${path}`, 'device_del', 'id=x']);
    expect(none).toMatchObject({ status: 1, stderr: "nemu: DeviceNotFound: Device 'x' not found\n" });
    const lines = 'stop\nobject-add qom-type=memory-backend-ram id=m7 size=4096\nquery-memdev\nhelp device_del\ncont\n';
    const shell = await runNemu(['qmp', path], { input: Buffer.from(lines) });
    expect(shell).toMatchObject({ status: 0, stderr: '' });
    expect(shell.stdout.toString()).toMatch(/ STOP\n(.|\n)*"id": "m7"(.|\n)*device_del\n {2}id=\n(.|\n)* RESUME\n/);
    const nobody = await runNemu(['qmp', join(folder, 'nobody'), 'query-status']);
    expect(nobody).toMatchObject({ status: 1, stderr: expect.stringContaining('There is no QMP server at') });
  });

  test('one transcript has the same answers, and the same events', async () => {
    const fake = new FakeMachine();
    const server = qmpServer(fake.client);
    const peers = [await attach(), server.attach().peer];
    const [theirGreeting, ourGreeting] = await Promise.all(peers.map((peer) => peer.answer()));
    expect(shape(ourGreeting)).toEqual(shape(theirGreeting));
    const differences: unknown[] = [];
    for (const line of SAME) {
      for (const peer of peers) peer.send(line);
      const [theirs, ours] = await Promise.all(peers.map((peer) => peer.answer()));
      const command = /"?'?execute"?'?:\s*["']([\w-]+)/.exec(line)?.[1] ?? '';
      const see = SHAPED.has(command) ? shape : (message: Message) => message;
      if (!isDeepStrictEqual(see(ours), see(theirs))) differences.push({ line, ours, theirs });
    }
    expect(differences).toEqual([]);
    // An event may come after the answer to the command behind it.
    const count = ({ events }: QmpPeer) => events.length;
    await expect.poll(() => count(peers[0]), { timeout: 10_000 }).toBe(count(peers[1]));
    const names = peers.map(({ events }) => events.map(({ event, data }) => ({ event, data })));
    expect(names[1]).toEqual(names[0]);
    for (const peer of peers) peer.stream.destroy();
    server.close();
  });
});
