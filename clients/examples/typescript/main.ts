// Logs in with AppRole, reads a secret, is refused where its policies end, and has items encrypted and decrypted over
// streams: what a program does with Strongroom, with nothing but modules generated from the contracts.

import { readFileSync } from "node:fs";
import { ChannelCredentials, ClientError, createChannel, createClient, Metadata, Status } from "nice-grpc";

import { AppRoleServiceDefinition } from "./gen/strongroom/auth/v1/approle.js";
import { KvV2ServiceDefinition } from "./gen/strongroom/kv/v1/kv2.js";
import { TransitStreamServiceDefinition } from "./gen/strongroom/transit/v1/stream.js";

const ITEMS = 10_000;
const BATCH = 1_000;
const KEY = { mount: "transit", name: "app" };

function setting(name: string): string {
  const value = process.env[name];
  if (value === undefined) throw new Error(`${name}: is not set`);
  return value;
}

function* batches<Item>(items: Item[]): Generator<Item[]> {
  for (let first = 0; first < items.length; first += BATCH) yield items.slice(first, first + BATCH);
}

/** What a stream pulls its batches from. It asks for the next one when there is room for it. */
async function* requests<Item, Request>(items: Item[], request: (batch: Item[]) => Request): AsyncGenerator<Request> {
  for (const batch of batches(items)) yield request(batch);
}

async function main(): Promise<void> {
  const tls = ChannelCredentials.createSsl(readFileSync(setting("STRONGROOM_CACERT")));
  const channel = createChannel(setting("STRONGROOM_GRPC_ADDR"), tls);

  const { auth } = await createClient(AppRoleServiceDefinition, channel).loginAppRole({
    mount: "auth/approle/",
    roleId: setting("ROLE_ID"),
    secretId: setting("SECRET_ID"),
  });
  const caller = { metadata: Metadata({ authorization: `Bearer ${auth?.clientToken}` }) };

  const secrets = createClient(KvV2ServiceDefinition, channel);
  const { data } = await secrets.readSecret({ mount: "secret", path: "app" }, caller);
  console.log(`secret: ${Buffer.from(data)}`);
  try {
    await secrets.writeSecret({ mount: "secret", path: "app", data: Buffer.from("{}") }, caller);
    throw new Error("a write that no policy allows was accepted");
  } catch (error) {
    if (!(error instanceof ClientError && error.code === Status.PERMISSION_DENIED)) throw error;
    console.log("write: PERMISSION_DENIED");
  }

  const streams = createClient(TransitStreamServiceDefinition, channel);
  const plaintexts = Array.from({ length: ITEMS }, (_, number) => Buffer.from(`item ${number}`));
  const sealed = requests(plaintexts, (batch) => ({ ...KEY, items: batch.map((plaintext) => ({ plaintext })) }));
  const ciphertexts: string[] = [];
  for await (const { items } of streams.encryptStream(sealed, caller)) {
    for (const { ciphertext, error } of items) {
      if (error) throw new Error(error);
      ciphertexts.push(ciphertext);
    }
  }
  const opened = requests(ciphertexts, (batch) => ({ ...KEY, items: batch.map((ciphertext) => ({ ciphertext })) }));
  let number = 0;
  for await (const { items } of streams.decryptStream(opened, caller)) {
    for (const { plaintext, error } of items) {
      if (error || !plaintexts[number]?.equals(plaintext)) throw new Error(`item ${number}: ${error}`);
      number += 1;
    }
  }
  if (number !== ITEMS) throw new Error(`${number} results for ${ITEMS} items`);
  console.log(`items: ${number}`);
  channel.close();
}

await main();
