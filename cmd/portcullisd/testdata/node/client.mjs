// A client of Portcullis on Node's own gRPC, @grpc/grpc-js, written from the .proto files alone.
//
//   node client.mjs store|open <settings.json>
//
// It answers in lines of JSON on standard output. Nothing is read from standard input.
import { createHash, randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import grpc from "@grpc/grpc-js";
import loader from "@grpc/proto-loader";

const settings = JSON.parse(readFileSync(process.argv[3], "utf8"));
const say = (what) => process.stdout.write(JSON.stringify(what) + "\n");

// Whatever hangs, the process ends.
setTimeout(() => {
  console.error("gave up after two minutes");
  process.exit(1);
}, 120_000).unref();

const { portcullis } = grpc.loadPackageDefinition(
  loader.loadSync(
    ["capture", "grant", "release"].map((name) => `portcullis/v1/${name}.proto`),
    { includeDirs: [settings.protos], keepCase: true, enums: String, longs: String },
  ),
);

// The service proves who it is by its SPIFFE ID, not by a host name.
function checkServerIdentity(_, cert) {
  const names = cert.subjectaltname.split(", ").filter((name) => name.startsWith("URI:"));
  if (names.length !== 1 || names[0] !== `URI:${settings.server_id}`) {
    return new Error(`the service proves to be ${names}, not ${settings.server_id}`);
  }
}

const credentials = grpc.credentials.createSsl(
  readFileSync(settings.bundle),
  readFileSync(settings.key),
  readFileSync(settings.certificate),
  { checkServerIdentity },
);

// An image may be larger than the 4 MiB that gRPC takes when nothing is said.
const options = { "grpc.max_receive_message_length": 64 << 20, "grpc.max_send_message_length": 64 << 20 };
const dial = (Service) => new Service(settings.address, credentials, options);
const capture = dial(portcullis.v1.CaptureService);
const grants = dial(portcullis.v1.GrantService);
const release = dial(portcullis.v1.ReleaseService);

const soon = () => ({ deadline: Date.now() + 30_000 });

function call(client, method, request) {
  return new Promise((resolve, reject) => {
    client[method](request, new grpc.Metadata(), soon(), (err, answer) => (err ? reject(err) : resolve(answer)));
  });
}

const time = (ms) => ({ seconds: Math.floor(ms / 1000), nanos: (ms % 1000) * 1_000_000 });

// fields reads the length-delimited fields of a protobuf message and passes over numbers.
function* fields(message) {
  let at = 0;
  const varint = () => {
    let value = 0;
    for (let shift = 1; ; shift *= 128) {
      const byte = message[at++];
      value += (byte & 0x7f) * shift;
      if (byte < 0x80) return value;
      if (byte === undefined) throw new Error("the message is cut short");
    }
  };
  while (at < message.length) {
    const tag = varint();
    const length = varint(); // or the number itself
    if (tag % 8 === 0) continue;
    if (tag % 8 !== 2) throw new Error(`wire type ${tag % 8} was not expected`);
    yield [Math.floor(tag / 8), message.subarray(at, (at += length))];
  }
}

// errorInfo finds the google.rpc.ErrorInfo in a call's trailer grpc-status-details-bin: a
// google.rpc.Status (details = 3) of google.protobuf.Any (type_url = 1, value = 2).
function errorInfo(err) {
  for (const status of err.metadata?.get("grpc-status-details-bin") ?? []) {
    for (const [number, detail] of fields(status)) {
      if (number !== 3) continue;
      const any = Object.fromEntries(fields(detail));
      if (String(any[1]) !== "type.googleapis.com/google.rpc.ErrorInfo") continue;
      const info = Object.fromEntries(fields(any[2]));
      return { reason: String(info[1]), domain: String(info[2]) };
    }
  }
  return {};
}

async function store() {
  for (const path of settings.images) {
    const { record, repeated } = await call(capture, "StoreImage", {
      request_id: randomUUID(),
      modality: "MODALITY_PLATE",
      capture_time: time(Date.now()),
      image: readFileSync(path),
    });
    say({ record, repeated });
  }
}

async function open() {
  const day = 24 * 60 * 60 * 1000;
  const { grant } = await call(grants, "RequestGrant", {
    purpose: settings.purpose,
    scope: {
      sites: [settings.site],
      modalities: ["MODALITY_PLATE"],
      start_time: time(Date.now() - day),
      end_time: time(Date.now() + day),
    },
    max_records: 10,
    ttl: { seconds: 3600 },
    justification: "work order 4711",
    request_id: randomUUID(),
  });
  say({ grant: grant.name });

  for (let state = grant.state; state !== "STATE_APPROVED"; await sleep(100)) {
    state = (await call(grants, "GetGrant", { name: grant.name })).grant.state;
  }
  const { grant_token } = await call(grants, "ActivateGrant", { name: grant.name });
  const show = { grant: grant.name, grant_token };

  const handles = [];
  let page_token = "";
  do {
    const page = await call(release, "ListRecords", { ...show, page_size: 1, page_token });
    handles.push(...page.records.map((record) => record.handle));
    page_token = page.next_page_token;
  } while (page_token);

  const images = [];
  for await (const { image } of release.FetchImages({ ...show, handles }, new grpc.Metadata(), soon())) {
    const sha256 = createHash("sha256").update(image.data).digest("hex");
    images.push({ handle: image.handle, type: image.content_type, size: image.data.length, sha256 });
  }
  say({ handles, images });

  // Until somebody ends the grant. Its end resets the connection; the next call opens another.
  for (;;) {
    try {
      await call(release, "FetchImage", { ...show, handle: handles[0] });
    } catch (err) {
      const { reason, domain } = errorInfo(err);
      if (reason || err.code !== grpc.status.UNAVAILABLE) {
        say({ refused: { code: grpc.status[err.code], reason, domain, details: err.details } });
        return;
      }
    }
    await sleep(50);
  }
}

await { store, open }[process.argv[2]]();
for (const client of [capture, grants, release]) client.close();
