// Watches a realm whose keys rotate every few seconds, with jose's own caching.
//
// usage: node rotation.js ISSUER CLIENT_ID KEY_FILE AUDIENCE SECONDS
//
// Exits 1 when a token that was issued is refused once, or when no rotation was seen.

import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'
import { setTimeout as sleep } from 'node:timers/promises'
import { decodeJwt, decodeProtectedHeader } from 'jose'
import { Client } from './client.js'
import { RelyingParty } from './relying-party.js'

// Keys that sign one after another in the time that the recipe watches, at least.
const ROTATIONS = 3
// Between two tokens: many for each key, and room for everything else on two cores.
const PAUSE_MS = 50

const [issuer, clientId, keyFile, audience, seconds] = process.argv.slice(2)
const client = await Client.open(issuer, clientId, await readFile(keyFile, 'utf8'))
const answer = await fetch(`${issuer}/jwks.json`)
const maxAge = Number(answer.headers.get('cache-control').match(/max-age=(\d+)/)[1])
const HOUR = 3_600_000
// The one keeps the key set for its max-age, and never asks for an unknown key. The other keeps
// it for long, and asks for unknown keys no more often than every 3 s: less than the 4 s for
// which a key stands in the set before it signs.
const watchers = [
  await RelyingParty.open(issuer, audience, { cacheMaxAge: maxAge * 1000, cooldownDuration: HOUR }),
  await RelyingParty.open(issuer, audience, { cacheMaxAge: HOUR, cooldownDuration: 3000 }),
]

await client.token(audience)
const kids = new Set()
const tokens = []
const until = performance.now() + Number(seconds) * 1000
while (performance.now() < until) {
  const token = await client.token(audience)
  for (const watcher of watchers) await watcher.accept(token)
  kids.add(decodeProtectedHeader(token).kid)
  tokens.push(token)
  await sleep(PAUSE_MS)
}
// What retired keys signed stays good until it expires.
const alive = tokens.filter((token) => decodeJwt(token).exp > Date.now() / 1000 + 1)
for (const token of alive) for (const watcher of watchers) await watcher.accept(token)
assert(kids.size > ROTATIONS, `only ${kids.size} keys signed in ${seconds} s`)
console.log(`rotation: ${tokens.length} tokens under ${kids.size} keys validated, none refused`)
console.log(`rotation: ${alive.length} of them validated again after their keys had retired`)
